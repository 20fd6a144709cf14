"""Settings: struct fields that carry their own help, unit, range and flag.

Owns: how a field is described (`option`) and how its description is read back (`described_fields`).
Settings structs live beside the code they steer; command-line flags, docs tables and config.json
all come from their fields. Does not own: parsing of the command line (`frazil.cli.flags`).
"""

import operator
import types
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from frazil.errors import InputError

_BOUNDS = {
    "ge": (operator.ge, "at least", "minimum"),
    "gt": (operator.gt, "more than", "exclusiveMinimum"),
    "le": (operator.le, "at most", "maximum"),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings struct: immutable, keyword-only, unknown keys refused."""

    def __post_init__(self) -> None:
        """Raise InputError, naming the flag, when a value is out of its bounds."""
        for field in described_fields(type(self)):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                field.check(number)


def option(
    *flags: str,
    help: str,
    unit: str | None = None,
    metavar: str | None = None,
    repeat: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> msgspec.Meta:
    """Return the description of one settings field, to be put into `Annotated`.

    Parameters
    ----------
    flags : command-line flags, long or short; a name without dashes is a positional argument.
        Give a bool that defaults to True its negative flag ("--no-window").
    help : one line, without the unit and the default, which are added where they are shown.
    unit : unit of the value, e.g. "px" or "A".
    metavar : how the value is called in --help.
    repeat : of a field of several values: the flag takes one and may be given again and again.
    ge, gt, le : bounds of the value, or of each of several; None as a value is always allowed.
    """
    bounds = {name: b for name, b in (("ge", ge), ("gt", gt), ("le", le)) if b is not None}
    schema = {_BOUNDS[name][2]: bound for name, bound in bounds.items()}
    extra: dict[str, object] = {"flags": flags, "unit": unit, "metavar": metavar}
    extra |= {"repeat": repeat, "bounds": bounds}
    return msgspec.Meta(description=help, extra=extra, extra_json_schema=schema)


@dataclass(frozen=True)
class Field:
    """What is known of one settings field.

    `kind` is its plain type without None; `many` says that it takes several values, `count` how
    many when that is fixed, `repeat` that each comes with the flag again.
    """

    name: str
    flags: tuple[str, ...]
    kind: Any
    many: bool
    count: int | None
    repeat: bool
    choices: tuple[str, ...] | None
    default: Any
    required: bool
    help: str
    unit: str | None
    metavar: str | None
    bounds: dict[str, float]

    def check(self, value: Any) -> None:
        """Raise InputError unless a value is within the bounds (None always is)."""
        for name, bound in self.bounds.items():
            within, words, _ = _BOUNDS[name]
            if value is not None and not within(value, bound):
                raise InputError(f"{self.flags[0]} {value}: must be {words} {bound}")


@cache
def described_fields(settings: type[Settings]) -> tuple[Field, ...]:
    """Return the described fields of a settings struct, in the order they were written."""
    hints = get_type_hints(settings, include_extras=True)
    fields = []
    for field in msgspec.structs.fields(settings):
        hint = hints[field.name]
        meta = next((m for m in getattr(hint, "__metadata__", ()) if m.extra), None)
        if meta is None:
            continue
        kind, values, choices = _plain_type(get_args(hint)[0])
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        required = default is msgspec.NODEFAULT
        fields.append(
            Field(
                field.name,
                tuple(meta.extra["flags"]),
                kind,
                values is not None,
                values or None,
                meta.extra["repeat"],
                choices,
                None if required else default,
                required,
                meta.description,
                meta.extra["unit"],
                meta.extra["metavar"],
                meta.extra["bounds"],
            )
        )
    return tuple(fields)


def _plain_type(hint: Any) -> tuple[Any, int | None, tuple[str, ...] | None]:
    """Return (element type, number of values, choices) of a field's type.

    The number is None for a single value and 0 for any number of them.
    """
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is Literal:
        return str, None, get_args(hint)
    if get_origin(hint) is tuple:
        elements = get_args(hint)
        return elements[0], 0 if elements[-1] is Ellipsis else len(elements), None
    return hint, None, None
