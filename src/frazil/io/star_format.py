"""STAR files as tables of text: reading, writing, and copying chosen rows unchanged.

Owns: the format, one line per row as RELION writes it. A file is scanned once for where its tables
lie; columns are parsed when asked for, so that no file is held in memory. Does not own: what the
labels mean (`frazil.io.star`). Multi-line text values and rows that run over several lines, which
the particle programs do not write, are refused as rows of the wrong length.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError, MissingFileError

# A quote ends where white space follows it; inside a word it is an ordinary character.
_TOKEN = re.compile(rb"""'.*?'(?=\s|$)|".*?"(?=\s|$)|\S+""")
_LABEL = re.compile(rb"(_\S+|rln\w+)(\s+#\s*\d+)?\s*(#.*)?$")


@dataclass(frozen=True)
class StarTable:
    """One table: its labels, and where its rows lie in the file.

    `names` are the labels with their underscore; any look-up takes them with or without it.
    `start` and `stop` are byte offsets of the rows (of a non-loop table: its lines), `first_line`
    and `last_line` their 1-based line numbers.
    """

    path: Path
    name: str
    names: tuple[str, ...]
    n_rows: int
    start: int
    stop: int
    first_line: int
    last_line: int
    is_loop: bool
    quoted: bool = False
    values: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return self.n_rows

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _with_underscore(name) in self.names

    def position(self, name: str) -> int:
        """Return a column's place, or raise InputError naming the columns there are."""
        label = _with_underscore(name)
        if label not in self.names:
            raise InputError(
                f"{self.path}: table data_{self.name} has no column {label}; it has "
                f"{', '.join(self.names)}"
            )
        return self.names.index(label)

    def column(self, name: str, kind: type = float) -> NDArray[Any]:
        """Return one column (N,): float64 for `float`, int64 for `int`, objects for `str`.

        Raises
        ------
        InputError : no such column, or a value that is not such a number (file and line).
        """
        if kind is str:
            return np.array(self.strings(name), dtype=object)
        values = self.numbers([name])[:, 0]
        if kind is float:
            return values
        whole = values.astype(np.int64)
        bad = np.flatnonzero(whole != values)
        if bad.size:
            self._refuse(int(bad[0]), name, "an integer")
        return whole

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return several columns as (N, len(names)) float64, in one pass over the file.

        Raises
        ------
        InputError : no such column, or a value that is not a finite number (file and line).
        """
        places = [self.position(name) for name in names]
        if not self.n_rows or not places:
            return np.empty((self.n_rows, len(places)))
        try:
            if not self.is_loop:
                parsed = np.array([[float(self.values[place]) for place in places]])
            elif self.quoted:
                parsed = np.array([[float(row[p]) for p in places] for row in self.rows()])
            else:
                lines = (line.decode("ascii", "replace") for _, line in self._lines())
                parsed = np.loadtxt(lines, usecols=places, ndmin=2, comments=None)
        except ValueError:
            parsed = np.array([[_number(row[p]) for p in places] for row in self.rows()])
        bad = np.argwhere(~np.isfinite(parsed))
        if bad.size:
            self._refuse(int(bad[0, 0]), names[int(bad[0, 1])], "a finite number")
        return parsed

    def strings(self, name: str) -> list[str]:
        """Return one column as text, without quotes."""
        return list(self.iterate(name))

    def iterate(self, name: str) -> Iterator[str]:
        """Yield one column as text, without quotes, holding one line at a time."""
        place = self.position(name)
        if not self.is_loop or self.quoted:
            yield from (row[place] for row in self.rows())
            return
        for _, line in self._lines():
            yield line.split(None, place + 1)[place].decode("utf-8", "surrogateescape")

    def rows(self) -> Iterator[list[str]]:
        """Yield the values of each row as text, without quotes."""
        if not self.is_loop:
            yield list(self.values)
            return
        for _, line in self._lines():
            yield [text_of(token) for token in split_line(line)]

    def line_of(self, row: int) -> int:
        """Return the 1-based line of the file on which a row (0-based) stands."""
        if not self.is_loop:
            return self.first_line
        for number, (line_number, _) in enumerate(self._lines()):
            if number == row:
                return line_number
        return self.first_line

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield (line number, line) of every row."""
        if not self.n_rows:
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            lines = islice(file, self.last_line - self.first_line + 1)
            for number, line in enumerate(lines, self.first_line):
                if not is_blank(line):
                    yield number, line

    def _refuse(self, row: int, name: str, wanted: str) -> None:
        """Raise the error for a value that is not what was wanted."""
        place = self.position(name)
        text = next(v[place] for number, v in enumerate(self.rows()) if number == row)
        raise InputError(
            f"{self.path}:{self.line_of(row)}: row {row} (0-based) of data_{self.name} has "
            f"{self.names[place]} = {text}, {wanted} is wanted; correct or remove the row"
        )


@dataclass(frozen=True)
class StarFile:
    """The tables of a STAR file by name ("optics" for data_optics, "" for data_)."""

    path: Path
    blocks: dict[str, StarTable]

    def block(self, name: str) -> StarTable:
        """Return a table, or raise InputError naming the tables there are."""
        if name not in self.blocks:
            there = ", ".join(f"data_{other}" for other in self.blocks)
            raise InputError(f"{self.path}: no table data_{name}; it has {there}")
        return self.blocks[name]

    @property
    def particles(self) -> StarTable:
        """The table with _rlnImageName (data_particles when there are several)."""
        found = [table for table in self.blocks.values() if "_rlnImageName" in table]
        named = [table for table in found if table.name == "particles"]
        if not found or (len(found) > 1 and not named):
            there = "; ".join(
                f"data_{name}: {', '.join(table.names)}" for name, table in self.blocks.items()
            )
            raise InputError(
                f"{self.path}: one table with _rlnImageName is wanted, found {len(found)} ({there})"
            )
        return (named or found)[0]


def read_star(path: Path) -> StarFile:
    """Return the tables of a STAR file; their columns are parsed when asked for.

    Raises
    ------
    MissingFileError : no such file.
    InputError : no table in it, a row of the wrong length (file and line), or two tables of a name.
    """
    path = Path(path)
    scanner = _Scanner(path)
    try:
        with path.open("rb") as file:
            for line in file:
                scanner.take(line)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    scanner.close_table()
    if not scanner.tables:
        raise InputError(f"{path}: no table (data_...) in it; a STAR file is wanted")
    return StarFile(path, scanner.tables)


class _Scanner:
    """Finds the tables while lines go by, and counts the values of each row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[str, StarTable] = {}
        self.line_number = 0
        self.offset = 0
        self.block: str | None = None
        self._clear()

    def _clear(self) -> None:
        """Forget the table under way."""
        self.labels: list[str] = []
        self.values: list[str] = []
        self.state = "outside"  # outside, labels (of a loop), rows, pairs
        self.quoted = False
        self.n_rows = 0
        self.start = self.stop = self.first_line = self.last_line = 0

    def take(self, line: bytes) -> None:
        """Take the next line of the file."""
        self.line_number += 1
        self.offset += len(line)
        is_key = self._is_key(line)
        if self.state == "rows" and not is_key:
            self._row(line)
            return
        if is_blank(line):
            return
        if is_key and line.startswith(b"data_"):
            self.close_table()
            self.block = text_of(line.split()[0][5:])
        elif self.block is None:
            raise InputError(
                f"{self.path}:{self.line_number}: a STAR file is wanted, but no data_ line "
                "precedes this one"
            )
        elif is_key:
            self.close_table()
            self.state = "labels"
        elif self.state == "labels" and _LABEL.match(line):
            self.labels.append(_with_underscore(text_of(line.split()[0])))
        elif self.state == "labels":
            self.state = "rows"
            self.start, self.first_line = self.offset - len(line), self.line_number
            self._row(line)
        else:
            self._pair(line)

    def _is_key(self, line: bytes) -> bool:
        """Return whether a line begins a block or loop (and is no row like data_set1/a.mrc ...)."""
        if not line.startswith((b"data_", b"loop_")):
            return False
        return len(self.labels) < 2 or len(split_line(line)) != len(self.labels)

    def _row(self, line: bytes) -> None:
        """Count one row of a loop."""
        if b"'" in line or b'"' in line:
            self.quoted = True
        slow = self.quoted or b"#" in line
        count = len(split_line(line) if slow else line.split())
        if not count:
            return
        if count != len(self.labels):
            raise InputError(
                f"{self.path}:{self.line_number}: row {self.n_rows} (0-based) of "
                f"data_{self.block} has {count} values, {len(self.labels)} columns are "
                "declared; correct or remove the row"
            )
        self.n_rows += 1
        self.stop, self.last_line = self.offset, self.line_number

    def _pair(self, line: bytes) -> None:
        """Take one `_label value` line of a table without loop."""
        tokens = split_line(line)
        if len(tokens) != 2 or not tokens[0].startswith(b"_"):
            raise InputError(
                f"{self.path}:{self.line_number}: `_label value` is wanted in data_{self.block}, "
                f"found {text_of(line.strip())[:60]}"
            )
        if self.state != "pairs":
            self.state = "pairs"
            self.start, self.first_line = self.offset - len(line), self.line_number
        self.labels.append(text_of(tokens[0]))
        self.values.append(text_of(tokens[1]))
        self.stop, self.last_line = self.offset, self.line_number

    def close_table(self) -> None:
        """Keep the table under way, if there is one."""
        if self.block is not None and self.labels:
            if self.block in self.tables:
                raise InputError(
                    f"{self.path}:{self.line_number}: a second table in data_{self.block}; "
                    "tables of one file need different names"
                )
            repeated = {label for label in self.labels if self.labels.count(label) > 1}
            if repeated:
                raise InputError(
                    f"{self.path}: data_{self.block} has column {min(repeated)} twice; remove one"
                )
            self.tables[self.block] = StarTable(
                self.path,
                self.block,
                tuple(self.labels),
                1 if self.state == "pairs" else self.n_rows,
                self.start or self.offset,
                self.stop or self.offset,
                self.first_line,
                self.last_line,
                self.state != "pairs",
                self.quoted,
                tuple(self.values),
            )
        self._clear()


def split_line(line: bytes) -> list[bytes]:
    """Return the values of a row, quotes kept, without a trailing comment (" #...")."""
    tokens = _TOKEN.findall(line)
    for place, token in enumerate(tokens):
        if token.startswith(b"#"):
            return tokens[:place]
    return tokens


def token_spans(line: bytes) -> list[tuple[int, int]]:
    """Return (start, stop) of every value in a row, in bytes."""
    count = len(split_line(line))
    return [match.span() for match in _TOKEN.finditer(line)][:count]


def text_of(token: bytes) -> str:
    """Return a value as text, without its quotes."""
    if len(token) > 1 and token[:1] in (b"'", b'"') and token[-1:] == token[:1]:
        token = token[1:-1]
    return token.decode("utf-8", "surrogateescape")


def _with_underscore(name: str) -> str:
    """Return a label with its leading underscore."""
    return name if name.startswith("_") else f"_{name}"


def is_blank(line: bytes) -> bool:
    """Return whether a line holds nothing but space or a comment."""
    return line.isspace() or (b"#" in line and line.lstrip().startswith(b"#"))


def _number(text: str) -> float:
    """Return a number, NaN when the text is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
