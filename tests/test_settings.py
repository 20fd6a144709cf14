"""Settings structs: what a field says of itself, and that it is held to it."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

import frazil
from frazil.errors import InputError
from frazil.settings import Settings, described_fields, option


class Example(Settings, frozen=True, kw_only=True):
    """A struct with one field of every kind."""

    box_px: Annotated[int, option("-D", "--box", help="new box", unit="px", ge=2)]
    window: Annotated[bool, option("--no-window", help="leave out the window")] = True
    radii: Annotated[tuple[float, ...], option("--radii", help="radii of the window")] = (
        0.85,
        0.99,
    )
    order: Annotated[Literal["window-first", "crop-first"], option("--order", help="order")] = (
        "window-first"
    )
    subset: Annotated[Path | None, option("--ind", help="rows to keep", metavar="PKL")] = None
    names: Annotated[tuple[str, ...], option("--names", help="names")] = msgspec.field(
        default_factory=lambda: ("a",)
    )
    internal: int = 3


def field(name: str):
    return next(field for field in described_fields(Example) if field.name == name)


def test_described_fields_come_in_the_order_in_which_they_were_written():
    names = [field.name for field in described_fields(Example)]
    assert names == ["box_px", "window", "radii", "order", "subset", "names"]


def test_a_field_without_option_is_not_described():
    assert "internal" not in {field.name for field in described_fields(Example)}


def test_a_field_says_its_flags_help_unit_and_metavar():
    assert field("box_px").flags == ("-D", "--box")
    assert field("box_px").help == "new box"
    assert field("box_px").unit == "px"
    assert field("subset").metavar == "PKL"
    assert field("subset").unit is None


def test_a_field_says_its_plain_type():
    assert field("box_px").kind is int
    assert field("window").kind is bool
    assert (field("radii").kind, field("radii").many) == (float, True)
    assert (field("subset").kind, field("subset").many) == (Path, False)
    assert field("order").kind is str
    assert field("order").choices == ("window-first", "crop-first")
    assert field("radii").choices is None


def test_a_field_says_its_default_or_that_there_is_none():
    assert field("box_px").required
    assert field("box_px").default is None
    assert not field("subset").required
    assert field("subset").default is None
    assert field("radii").default == (0.85, 0.99)
    assert field("names").default == ("a",)


def test_settings_cannot_be_changed():
    settings = Example(box_px=8)
    with pytest.raises(AttributeError, match="immutable"):
        settings.box_px = 9
    assert settings.box_px == 8


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"box_px": 1}, "-D 1: must be at least 2"),
        ({"box_px": 8, "order": "never"}, "order"),
        ({"box_px": 8, "boxx_px": 9}, "boxx_px"),
        ({"box_px": "8"}, "box_px"),
        ({}, "box_px"),
    ],
)
def test_settings_from_outside_are_checked(given, complaint):
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(given, Example)
    assert msgspec.convert({"box_px": 2}, Example).box_px == 2


class Bounded(Settings, frozen=True, kw_only=True):
    """A struct of bounded fields."""

    count: Annotated[int | None, option("-n", help="how many", ge=1)] = None
    rate: Annotated[float, option("--rate", help="rate", gt=0, le=1)] = 0.5
    radii: Annotated[tuple[float, ...], option("--radii", help="radii", ge=0, le=1)] = (0.5,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "-n 0: must be at least 1"),
        ({"rate": 0.0}, "--rate 0.0: must be more than 0"),
        ({"rate": 1.5}, "--rate 1.5: must be at most 1"),
        ({"rate": float("nan")}, "--rate nan: must be"),
        ({"radii": (0.5, -1.0)}, "--radii -1.0: must be at least 0"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_flag_and_bound(given, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Bounded(**given)


@pytest.mark.parametrize(
    "given",
    [{}, {"count": 1}, {"count": None}, {"rate": 1.0}, {"radii": (0.0, 1.0)}, {"radii": ()}],
)
def test_values_on_the_bounds_and_none_are_taken(given):
    settings = Bounded(**given)
    assert all(getattr(settings, name) == value for name, value in given.items())


def test_bounds_are_in_the_json_schema():
    properties = msgspec.json.schema(Bounded)["$defs"]["Bounded"]["properties"]
    assert properties["rate"]["exclusiveMinimum"] == 0
    assert properties["rate"]["maximum"] == 1


def test_settings_travel_through_json():
    settings = Example(box_px=8, radii=(0.5, 0.6))
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Example) == settings


def all_settings() -> list[type[Settings]]:
    """Return every settings struct of the package."""
    for module in pkgutil.walk_packages(frazil.__path__, "frazil."):
        importlib.import_module(module.name)
    found, queue = [], [Settings]
    while queue:
        subclasses = queue.pop().__subclasses__()
        found += [struct for struct in subclasses if struct.__module__.startswith("frazil.")]
        queue += subclasses
    return found


def test_every_described_field_of_the_package_can_be_shown_to_a_user():
    structs = all_settings()
    assert structs
    for struct in structs:
        for known in described_fields(struct):
            place = f"{struct.__name__}.{known.name}"
            assert known.help.strip(), place
            assert "\n" not in known.help, place
            if known.default is not None:
                assert "default" not in known.help.lower(), f"{place}: the default adds itself"
            assert known.flags, place
            if known.kind is bool and known.default is True:
                negative = ("--no-", "--skip-", "--un")
                assert known.flags[0].startswith(negative), f"{place}: a negative flag is wanted"


def test_no_struct_of_the_package_gives_one_flag_twice():
    for struct in all_settings():
        flags = [flag for known in described_fields(struct) for flag in known.flags]
        assert len(flags) == len(set(flags)), struct.__name__


def test_structs_of_the_package_are_frozen_and_keyword_only():
    """msgspec does not inherit kw_only: every struct must say it."""
    for struct in all_settings():
        assert struct.__struct_config__.frozen, struct
        parameters = inspect.signature(struct).parameters.values()
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters), struct
