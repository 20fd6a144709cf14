"""Flags of the command line, made from the fields of settings structs.

Owns: the way from a struct to argparse and back. Does not own: what the flags mean.
"""

import argparse
from typing import Any, TypeVar

import msgspec

from frazil.errors import InputError
from frazil.settings import Field, Settings, described_fields

S = TypeVar("S", bound=Settings)


def add_settings(parser: argparse.ArgumentParser, settings: type[Settings]) -> None:
    """Add one argument per described field; the field's name is the argument's `dest`."""
    for field in described_fields(settings):
        positional = not field.flags[0].startswith("-")
        keywords: dict[str, Any] = {"help": _help(field)}
        if positional:
            keywords["metavar"] = field.metavar or field.flags[0]
            keywords["type"] = field.kind
            parser.add_argument(field.name, **keywords)
            continue
        keywords["dest"] = field.name
        keywords["default"] = argparse.SUPPRESS
        if field.kind is bool:
            keywords["action"] = "store_false" if field.default is True else "store_true"
        else:
            keywords["type"] = field.kind
            keywords["required"] = field.required
            keywords["choices"] = field.choices
            keywords["metavar"] = None if field.choices else field.metavar
            if field.repeat:
                keywords["action"] = "append"
            elif field.many:
                keywords["nargs"] = field.count or "+"
        parser.add_argument(*field.flags, **keywords)


def read_settings(args: argparse.Namespace, settings: type[S]) -> S:
    """Return the struct of the given arguments; what was not given keeps its default.

    Raises
    ------
    InputError : a value is out of its range; the message names the flag.
    """
    fields = {field.name: field for field in described_fields(settings)}
    given = {name: getattr(args, name) for name in fields if hasattr(args, name)}
    try:
        return msgspec.convert(given, settings)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        name = str(error).rpartition("$.")[2].strip("`").split("[")[0]
        flag = fields[name].flags[0] if name in fields else "an option"
        raise InputError(f"{flag}: {str(error).partition(' - at')[0].lower()}") from error


def _help(field: Field) -> str:
    notes = []
    if field.unit:
        notes.append(field.unit)
    if not (field.default is None or isinstance(field.default, bool) or field.default == ()):
        shown = " ".join(map(str, field.default)) if field.many else field.default
        notes.append(f"default: {shown}")
    text = field.help.replace("%", "%%")
    return f"{text} ({', '.join(notes)})" if notes else text
