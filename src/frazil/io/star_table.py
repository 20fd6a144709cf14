"""One table of a STAR file: its labels, and its columns parsed when they are asked for.

Owns: the values of rows, which are read from the file in blocks, and how a line falls into values.
Does not own: where tables lie in a file (`frazil.io.star_format`), what labels mean
(`frazil.io.star`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from frazil.errors import CorruptDataError, InputError

# A quote ends where white space follows it; inside a word it is an ordinary character.
_TOKEN = re.compile(rb"""'.*?'(?=\s|$)|".*?"(?=\s|$)|\S+""")
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
BLOCK_BYTES = 4 << 20
COMPILED_BYTES = 32 << 20
"""Tables from this size on are read by compiled loops, which take a second to load."""


@dataclass(frozen=True)
class StarTable:
    """One table: its labels, and where its rows lie in the file.

    `names` are the labels with their underscore; any look-up takes them with or without it.
    `start` and `stop` are byte offsets of the rows (of a non-loop table: its lines), `first_line`
    and `last_line` their 1-based line numbers. `irregular` says that white space alone does not
    part the values of every row (quoted spaces, comments behind a row).
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
    irregular: bool = False
    values: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return self.n_rows

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and with_underscore(name) in self.names

    def position(self, name: str) -> int:
        """Return a column's place, or raise InputError naming the columns there are."""
        label = with_underscore(name)
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
            self.refuse(int(bad[0]), name, "an integer")
        return whole

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return several columns as (N, len(names)) float64, in one pass over the file.

        Raises
        ------
        InputError : no such column, or a value that is not a finite number (file and line).
        """
        out = np.empty((self.n_rows, len(names)))
        for first, values, _ in self.parsed(names):
            out[first : first + len(values)] = values
        return out

    def parsed(
        self, numbers: Sequence[str], texts: Sequence[str] = ()
    ) -> Iterator[tuple[int, NDArray[np.float64], list[list[bytes]]]]:
        """Yield blocks of rows: the first row, numbers (n, len(numbers)), tokens of each text.

        Raises
        ------
        InputError : no such column, or a value that is not a finite number (file and line).
        """
        places = [[self.position(name) for name in names] for names in (numbers, texts)]
        if not self._is_plain():
            for first, columns in self.blocks([*numbers, *texts]):
                yield first, *self._values(first, columns, numbers)
            return
        from frazil.io.star_compiled import parse_rows  # numba takes a second

        first = 0
        for block in self._raw_blocks():
            rows = block.count(b"\n") + (not block.endswith(b"\n"))
            found = parse_rows(block, rows, len(self.names), *places)
            if found is None:  # e.g. 17 digits, which one rounding does not make a number
                tokens = block.split()
                columns = [tokens[place :: len(self.names)] for place in (*places[0], *places[1])]
                found = self._values(first, columns, numbers)
            yield first, *found
            first += rows
        self._check_unchanged(first)

    def _values(
        self, first: int, columns: list[list[bytes]], numbers: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[list[bytes]]]:
        """Return the numbers of the leading columns, and the other columns as they are."""
        found = [self.floats(first, name, c) for name, c in zip(numbers, columns, strict=False)]
        values = np.stack(found, axis=1) if found else np.empty((len(columns[0]), 0))
        return values, columns[len(numbers) :]

    def _is_plain(self) -> bool:
        """Return whether the table is large, and compiled loops can read its rows."""
        lines = self.last_line - self.first_line + 1
        large = self.stop - self.start >= COMPILED_BYTES
        return large and self.is_loop and not self.irregular and lines == self.n_rows

    def floats(self, first: int, name: str, tokens: Sequence[bytes]) -> NDArray[np.float64]:
        """Return the numbers that a column's tokens from row `first` on stand for.

        Raises
        ------
        InputError : a value that is not a finite number (file and line).
        """
        try:
            parsed = np.fromiter(map(float, tokens), np.float64, len(tokens))
        except ValueError:
            parsed = np.array([_number(token) for token in tokens])
        # Python takes 1_000 for a number; files do not.
        odd = b"_" in b"".join(tokens)
        bad = np.flatnonzero([b"_" in t for t in tokens] if odd else ~np.isfinite(parsed))
        if bad.size:
            self.refuse(first + int(bad[0]), name, "a finite number")
        return parsed

    def strings(self, name: str) -> list[str]:
        """Return one column as text, without quotes."""
        return list(self.iterate(name))

    def iterate(self, name: str) -> Iterator[str]:
        """Yield one column as text, without quotes, holding a block of rows at a time."""
        for _, (tokens,) in self.blocks([name]):
            yield from map(text_of, tokens)

    def blocks(self, names: Sequence[str]) -> Iterator[tuple[int, list[list[bytes]]]]:
        """Yield (first row, tokens of each column) block by block, quotes kept."""
        places = [self.position(name) for name in names]
        if not self.n_rows or not places:
            return
        if not self.is_loop:
            yield 0, [[self.values[p].encode("utf-8", "surrogateescape")] for p in places]
            return
        first, width = 0, len(self.names)
        for tokens in self._token_blocks():
            yield first, [tokens[place::width] for place in places]
            first += len(tokens) // width
        self._check_unchanged(first)

    def _check_unchanged(self, rows: int) -> None:
        """Raise CorruptDataError when another number of rows was read than was counted."""
        if rows != self.n_rows:
            raise CorruptDataError(f"{self.path}: changed while it was read; read it again")

    def _token_blocks(self) -> Iterator[list[bytes]]:
        """Yield the values of whole rows, one row after the other."""
        for block in self._raw_blocks():
            if self.irregular or b"#" in block or b"\0" in block:
                lines = (line for line in block.split(b"\n") if not is_blank(line))
                split = split_line if self.irregular else bytes.split
                yield [token for line in lines for token in split(line)]
            else:
                yield block.split()

    def _raw_blocks(self) -> Iterator[bytes]:
        """Yield whole lines of the table, a few MB at a time."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.stop - self.start
            while left > 0:
                block = (file.read(min(left, BLOCK_BYTES)) + file.readline())[:left]
                if not block:
                    break
                left -= len(block)
                yield block

    def rows(self) -> Iterator[list[str]]:
        """Yield the values of each row as text, without quotes."""
        for _, columns in self.blocks(self.names):
            yield from ([text_of(token) for token in row] for row in zip(*columns, strict=True))

    def line_of(self, row: int) -> int:
        """Return the 1-based line of the file on which a row (0-based) stands."""
        if not self.is_loop or not self.n_rows:
            return self.first_line
        with self.path.open("rb") as file:
            file.seek(self.start)
            lines = islice(file, self.last_line - self.first_line + 1)
            numbers = (n for n, line in enumerate(lines, self.first_line) if not is_blank(line))
            return next(islice(numbers, row, None), self.first_line)

    def refuse(self, row: int, name: str, wanted: str) -> NoReturn:
        """Raise the error for a value that is not what was wanted."""
        text = next(islice(self.iterate(name), row, None))
        raise InputError(
            f"{self.path}:{self.line_of(row)}: row {row} (0-based) of data_{self.name} has "
            f"{with_underscore(name)} = {text}, {wanted} is wanted; correct or remove the row"
        )


def is_regular(line: bytes) -> bool:
    """Return whether white space alone parts the values of a row.

    Quotes that open and close around one word are no obstacle; whatever is less plain counts as
    one, so that True is certain.
    """
    if b"#" in line and any(token.startswith(b"#") for token in line.split()):
        return False
    if _CONTROL.search(line):
        return False
    if b"'" not in line and b'"' not in line:
        return True
    words = (token for token in line.split() if token[:1] in (b"'", b'"'))
    return all(len(word) > 1 and word[-1:] == word[:1] for word in words)


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


def with_underscore(name: str) -> str:
    """Return a label with its leading underscore."""
    return name if name.startswith("_") else f"_{name}"


def is_blank(line: bytes) -> bool:
    """Return whether a line holds nothing but space (some programs write NUL) or a comment."""
    return line.lstrip(b" \t\r\n\v\f\0")[:1] in (b"", b"#")


def _number(token: bytes) -> float:
    """Return a number, NaN when the text is none."""
    try:
        return float(text_of(token))
    except ValueError:
        return float("nan")
