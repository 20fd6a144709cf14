"""Settings: struct fields that carry their own help, unit, range and flag.

Owns: how a field is described (`option`) and how its description is read back (`describe`).
Settings structs live beside the code they steer; command-line flags, docs tables and config.json
all come from their fields. Does not own: parsing of the command line (`frazil.cli.flags`).
"""

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every settings struct: immutable, keyword-only, unknown keys refused."""


def option(
    *flags: str,
    help: str,
    unit: str | None = None,
    metavar: str | None = None,
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
    ge, gt, le : bounds of the value, checked when the struct is made from outside.
    """
    extra = {"flags": flags, "unit": unit, "metavar": metavar}
    bounds: dict[str, Any] = {"ge": ge, "gt": gt, "le": le}
    return msgspec.Meta(description=help, extra=extra, **bounds)


@dataclass(frozen=True)
class Field:
    """What is known of one settings field; `kind` is its plain type without None."""

    name: str
    flags: tuple[str, ...]
    kind: Any
    many: bool
    choices: tuple[str, ...] | None
    default: Any
    required: bool
    help: str
    unit: str | None
    metavar: str | None


def describe(settings: type[Settings]) -> list[Field]:
    """Return the described fields of a settings struct, in the order they were written."""
    hints = get_type_hints(settings, include_extras=True)
    fields = []
    for field in msgspec.structs.fields(settings):
        hint = hints[field.name]
        # An optional field with bounds is written Annotated[int, option(ge=...)] | None.
        described = next((h for h in (hint, *get_args(hint)) if hasattr(h, "__metadata__")), None)
        if described is None:
            continue
        meta = described.__metadata__[0]
        kind, many, choices = _plain_type(get_args(described)[0])
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        required = default is msgspec.NODEFAULT
        fields.append(
            Field(
                field.name,
                tuple(meta.extra["flags"]),
                kind,
                many,
                choices,
                None if required else default,
                required,
                meta.description,
                meta.extra["unit"],
                meta.extra["metavar"],
            )
        )
    return fields


def _plain_type(hint: Any) -> tuple[Any, bool, tuple[str, ...] | None]:
    """Return (element type, takes several values, choices) of a field's type."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if get_origin(hint) is Literal:
        return str, False, get_args(hint)
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True, None
    return hint, False, None
