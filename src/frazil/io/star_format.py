"""STAR files as tables of text: where the tables of a file lie.

Owns: the format, one line per row as RELION and cisTEM write it; keywords and names of tables in
any case. A file is scanned once, and no file is held in memory. Does not own: the values of rows
(`frazil.io.star_table`), what the labels mean (`frazil.io.star`). Multi-line text values and rows
that run over several lines, which the particle programs do not write, are refused with their line.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from frazil.errors import InputError, MissingFileError
from frazil.io import star_table
from frazil.io.star_table import (
    StarTable,
    is_blank,
    is_regular,
    split_line,
    text_of,
    token_spans,
    with_underscore,
)

__all__ = ["StarFile", "StarTable", "is_blank", "read_star", "token_spans"]

PARTICLE_LABELS = ("_rlnImageName", "_cisTEMPositionInStack")
"""The column that makes a table one of particles, in RELION's and in cisTEM's files."""

_LABEL = re.compile(rb"(_\S+|rln\w+)(\s+#\s*\d+)?\s*(#.*)?$")
_KEYWORDS = (b"data_", b"loop_")
_FIRST_OF_KEYWORDS = b"dDlL;"
_UNCOMMON = re.compile(rb"""['"#\0-\x08\x0e-\x1f]""")
# Compiled loops are left where lines between plain rows are more frequent than this.
_FEWEST_PLAIN = 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class StarFile:
    """The tables of a STAR file by name ("optics" for data_optics, "" for data_)."""

    path: Path
    blocks: dict[str, StarTable]

    def block(self, name: str) -> StarTable:
        """Return a table, or raise InputError naming the tables there are."""
        found = self._find(name)
        if found is None:
            there = ", ".join(f"data_{other}" for other in self.blocks)
            raise InputError(f"{self.path}: no table data_{name}; it has {there}")
        return found

    @property
    def optics(self) -> StarTable | None:
        """The table data_optics, None without one."""
        return self._find("optics")

    @property
    def particles(self) -> StarTable:
        """The table with image names (data_particles when there are several)."""
        found = [
            table
            for table in self.blocks.values()
            if any(label in table for label in PARTICLE_LABELS)
        ]
        named = [table for table in found if table.name.lower() == "particles"]
        if not found or (len(found) > 1 and not named):
            there = "; ".join(
                f"data_{name}: {', '.join(table.names)}" for name, table in self.blocks.items()
            )
            raise InputError(
                f"{self.path}: one table with {' or '.join(PARTICLE_LABELS)} is wanted, found "
                f"{len(found)} ({there})"
            )
        return (named or found)[0]

    def _find(self, name: str) -> StarTable | None:
        """Return the table of a name, written in whatever case."""
        names = (other for other in self.blocks if other.lower() == name.lower())
        found = name if name in self.blocks else next(names, None)
        return None if found is None else self.blocks[found]


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
            large = os.fstat(file.fileno()).st_size >= star_table.COMPILED_BYTES
            while block := file.read(star_table.BLOCK_BYTES) + file.readline():
                scanner.take_block(block, large)
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
        self.irregular = False
        self.n_rows = self.uncommon = 0
        self.start = self.stop = self.first_line = self.last_line = 0

    def take_block(self, block: bytes, large: bool) -> None:
        """Take whole lines; those of `large` files by compiled loops where they are plain rows."""
        place = 0
        while place < len(block):
            if large and self.state == "rows" and self.n_rows >= self.uncommon * _FEWEST_PLAIN:
                from frazil.io.star_compiled import plain_rows  # numba takes a second

                rows, size = plain_rows(memoryview(block)[place:], len(self.labels))
                self.uncommon += 1
                self.offset, self.line_number = self.offset + size, self.line_number + rows
                self._count_rows(rows)
                place += size
            line_end = block.find(b"\n", place) + 1 or len(block)
            if place < len(block):
                self.take(block[place:line_end])
            place = line_end

    def take(self, line: bytes) -> None:
        """Take the next line of the file."""
        self.line_number += 1
        self.offset += len(line)
        if (
            self.state == "rows"
            and len(line.split()) == len(self.labels)
            and line[0] not in _FIRST_OF_KEYWORDS
            and not _UNCOMMON.search(line)
        ):
            self._count_rows(1)
            return
        if self.line_number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not is_blank(line):
            self._take_uncommon(line)

    def _take_uncommon(self, line: bytes) -> None:
        """Take a line that is not blank, and more than a plain row."""
        is_key = self._is_key(line)
        if self.state == "rows" and not is_key:
            self._row(line)
        elif is_key and line[:5].lower() == b"data_":
            self.close_table()
            self.block = text_of(line.split()[0][5:])
        elif self.block is None:
            raise InputError(
                f"{self.path}:{self.line_number}: a STAR file is wanted, but no data_ line "
                "precedes this one"
            )
        elif is_key:
            if len(split_line(line)) > 1:
                raise InputError(
                    f"{self.path}:{self.line_number}: more than loop_ on its line; put every "
                    "label and every row on a line of its own"
                )
            self.close_table()
            self.state = "labels"
        elif self.state == "labels" and _LABEL.match(line):
            self.labels.append(with_underscore(text_of(line.split()[0])))
        elif self.state == "labels":
            self.state = "rows"
            self.start, self.first_line = self.offset - len(line), self.line_number
            self._row(line)
        else:
            self._pair(line)

    def _is_key(self, line: bytes) -> bool:
        """Return whether a line begins a block or loop (and is no row like data_set1/a.mrc ...)."""
        if not line[:5].lower().startswith(_KEYWORDS):
            return False
        return len(self.labels) < 2 or len(split_line(line)) != len(self.labels)

    def _row(self, line: bytes) -> None:
        """Count one row of a loop."""
        self._refuse_text(line)
        regular = is_regular(line)
        count = len(line.split() if regular else split_line(line))
        if count != len(self.labels):
            raise InputError(
                f"{self.path}:{self.line_number}: row {self.n_rows} (0-based) of "
                f"data_{self.block} has {count} values, {len(self.labels)} columns are "
                "declared; correct or remove the row"
            )
        self.irregular |= not regular
        self._count_rows(1)

    def _count_rows(self, rows: int) -> None:
        """Count the rows that were taken last."""
        if rows:
            self.n_rows += rows
            self.stop, self.last_line = self.offset, self.line_number

    def _pair(self, line: bytes) -> None:
        """Take one `_label value` line of a table without loop."""
        self._refuse_text(line)
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

    def _refuse_text(self, line: bytes) -> None:
        """Raise InputError at a line that opens a text of several lines."""
        if line.startswith(b";"):
            raise InputError(
                f"{self.path}:{self.line_number}: a text value over several lines (;) begins "
                "here, which no particle program writes; put it on one line in quotes, or remove it"
            )

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
                self.irregular,
                tuple(self.values),
            )
        self._clear()
