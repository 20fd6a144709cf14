"""Writing STAR files, and copying chosen rows of one without touching the rest.

Owns: quoting, and the pass-through of raw lines. Does not own: reading (`frazil.io.star_format`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frazil.errors import InputError
from frazil.io.atomic import atomic_path
from frazil.io.star_format import StarFile, StarTable, is_blank, read_star, token_spans

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]
_COPY_BYTES = 1 << 20
_RESERVED = ("data_", "loop_", "save_", "stop_", "global_")


def write_star(path: Path, blocks: StarFile | Mapping[str, Columns]) -> None:
    """Write tables as a STAR file, whole or not at all.

    Parameters
    ----------
    path : file to write.
    blocks : a StarFile, or table name ("optics" for data_optics) -> label -> values. All tables are
        written as loops; labels are given with or without underscore, numbers are written so that
        they read back exactly, and text is quoted where it must be.

    Raises
    ------
    InputError : columns of different length, a number that is not finite, or text with both kinds
        of quotes or a line break.
    """
    path = Path(path)
    if isinstance(blocks, StarFile):
        blocks = {
            name: {label: table.strings(label) for label in table.names}
            for name, table in blocks.blocks.items()
        }
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        for name, columns in blocks.items():
            texts = {label: _texts(values, label, path) for label, values in columns.items()}
            if len({len(values) for values in texts.values()}) > 1:
                lengths = ", ".join(f"{label} {len(values)}" for label, values in texts.items())
                raise InputError(f"{path}: columns of data_{name} differ in length: {lengths}")
            file.write(f"\ndata_{name}\n\nloop_\n")
            for number, label in enumerate(texts, start=1):
                file.write(f"_{label.removeprefix('_')} #{number}\n")
            file.writelines(f"{' '.join(row)}\n" for row in zip(*texts.values(), strict=True))
            file.write("\n")


def copy_rows(
    path: Path,
    out: Path,
    rows: ArrayLike,
    replace: Columns | None = None,
    tables: Mapping[str, Columns] | None = None,
    append: Columns | None = None,
) -> None:
    """Copy a STAR file, keeping only the given particle rows, in the given order.

    Everything that is not replaced is copied byte for byte: other tables, comments before and after
    the particles, and the text of every row kept (comments between rows are dropped).

    Parameters
    ----------
    path : STAR file to copy; its particles are the table with _rlnImageName.
    out : file to write.
    rows : (n,) particle rows, 0-based.
    replace : label -> n values, which replace those of the kept rows.
    tables : table name -> label -> one value per row, for the other tables (e.g. a new
        _rlnImagePixelSize in "optics").
    append : label -> n values, new columns behind the last one; NaN is written as nan.

    Raises
    ------
    InputError : a label or table that is not there, a row out of range, or another number of
        values.
    """
    star = read_star(Path(path))
    particles = star.particles
    kept = np.asarray(rows).astype(np.int64)
    if kept.size and not 0 <= kept.min() <= kept.max() < len(particles):
        raise InputError(
            f"{path}: rows {kept.min()} to {kept.max()} wanted, it has {len(particles)} particles"
        )
    if not particles.is_loop and kept.tolist() != [0]:
        raise InputError(
            f"{path}: its one particle without loop_ can only be copied whole, not {len(kept)} rows"
        )
    if particles.name in (tables or {}):
        raise InputError(f"{path}: data_{particles.name} holds the particles; use `replace` for it")
    for label in append or {}:
        if label in particles:
            raise InputError(f"{path}: has a column {label} already; use `replace` for it")
    if append and not particles.is_loop:
        raise InputError(f"{path}: its particles are no table (loop_), no column can be added")
    edits = [(particles, kept, replace or {})]
    for name, columns in (tables or {}).items():
        table = star.block(name)
        edits.append((table, np.arange(len(table)), columns))
    edits.sort(key=lambda edit: edit[0].start)
    with (
        Path(path).open("rb") as source,
        atomic_path(Path(out)) as temporary,
        temporary.open("wb") as file,
    ):
        position = 0
        for table, chosen, columns in edits:
            _copy_bytes(source, file, position, table.start)
            lines = _edited_rows(source, table, chosen, columns)
            if append and table is particles:
                file.writelines(_new_labels(source, table, append))
                lines = _appended(lines, table, append)
            file.writelines(lines)
            position = table.stop
        _copy_bytes(source, file, position, Path(path).stat().st_size)


def split_rows(path: Path, parts: Mapping[Path, ArrayLike]) -> None:
    """Write one copy of a STAR file for each part, with only its particle rows, as `copy_rows`.

    Parameters
    ----------
    path : STAR file to copy; it is scanned once, however many parts there are.
    parts : file to write -> (n,) particle rows, 0-based and in range.
    """
    particles = read_star(Path(path)).particles
    size = Path(path).stat().st_size
    with Path(path).open("rb") as source:
        offsets = _row_offsets(source, particles)
        for out, rows in parts.items():
            with atomic_path(Path(out)) as temporary, temporary.open("wb") as file:
                _copy_bytes(source, file, 0, particles.start)
                file.writelines(_raw_rows(source, offsets, np.asarray(rows)))
                _copy_bytes(source, file, particles.stop, size)


def _raw_rows(
    source: BinaryIO, offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> Iterator[bytes]:
    """Yield the lines of some rows, each with a line end."""
    for row in rows.tolist():
        source.seek(offsets[row])
        line = source.readline()
        yield line if line.endswith(b"\n") else line + b"\n"


def _copy_bytes(source: BinaryIO, out: BinaryIO, start: int, stop: int) -> None:
    """Copy bytes start to stop as they are."""
    source.seek(start)
    for first in range(start, stop, _COPY_BYTES):
        out.write(source.read(min(_COPY_BYTES, stop - first)))


def _edited_rows(
    source: BinaryIO, table: StarTable, rows: NDArray[np.int64], columns: Columns
) -> Iterator[bytes]:
    """Yield the raw lines of `rows` with the values of `columns` put in."""
    places = [table.position(label) for label in columns]
    texts = [_texts(values, label, table.path) for label, values in columns.items()]
    for label, values in zip(columns, texts, strict=True):
        if len(values) != len(rows):
            raise InputError(
                f"{table.path}: {len(values)} values of {label} given for {len(rows)} rows"
            )
    if not table.is_loop:
        yield from _edited_pairs(source, table, dict(zip(places, texts, strict=True)))
        return
    offsets = _row_offsets(source, table)
    replaced: Iterator[tuple[str, ...]] = (
        zip(*texts, strict=True) if texts else repeat((), len(rows))
    )
    finders = [_finder(table, place) for place in places]
    for raw, new in zip(_raw_rows(source, offsets, rows), replaced, strict=True):
        yield _edited_line(raw, [find(raw) for find in finders], new)


def _new_labels(source: BinaryIO, table: StarTable, columns: Columns) -> Iterator[bytes]:
    """Yield the label lines of new columns, with the line ends of the table."""
    source.seek(table.start)
    end = b"\r\n" if source.readline().endswith(b"\r\n") else b"\n"
    for number, label in enumerate(columns, start=len(table.names) + 1):
        yield f"_{label.removeprefix('_')} #{number}".encode() + end


def _appended(lines: Iterator[bytes], table: StarTable, columns: Columns) -> Iterator[bytes]:
    """Yield rows with the values of new columns behind their last value."""
    texts = [_texts(values, label, table.path, True) for label, values in columns.items()]
    for line, values in zip(lines, zip(*texts, strict=True), strict=True):
        stop = token_spans(line)[-1][1] if b"#" in line else len(line.rstrip())
        new = "".join(f" {value}" for value in values).encode("utf-8", "surrogateescape")
        yield line[:stop] + new + line[stop:]


def _edited_pairs(
    source: BinaryIO, table: StarTable, texts: Mapping[int, Sequence[str]]
) -> Iterator[bytes]:
    """Yield the lines of a table without loop, the value of each label in `texts` replaced."""
    source.seek(table.start)
    number = 0
    while source.tell() < table.stop:
        line = source.readline()
        if token_spans(line):
            if number in texts:
                line = _edited_line(line, [token_spans(line)[1]], texts[number])
            number += 1
        yield line


def _row_offsets(source: BinaryIO, table: StarTable) -> NDArray[np.int64]:
    """Return the byte offset of every row."""
    offsets = np.empty(len(table), np.int64)
    source.seek(table.start)
    position, number = table.start, 0
    while position < table.stop:
        line = source.readline()
        if not is_blank(line):
            offsets[number] = position
            number += 1
        position += len(line)
    return offsets


def _finder(table: StarTable, place: int) -> Callable[[bytes], tuple[int, int]]:
    """Return what finds (start, stop) of the value at `place` in a raw row."""
    if table.irregular:
        return lambda line: token_spans(line)[place]
    pattern = re.compile(rb"\s*(?:\S+\s+){%d}(\S+)" % place)

    def find(line: bytes) -> tuple[int, int]:
        found = pattern.match(line)
        if found is None:
            raise InputError(f"{table.path}: changed while it was copied")
        return found.span(1)

    return find


def _edited_line(line: bytes, spans: Sequence[tuple[int, int]], values: Sequence[str]) -> bytes:
    """Return a raw line with the bytes of `spans` replaced by `values`, all others kept."""
    for (start, stop), text in sorted(zip(spans, values, strict=True), reverse=True):
        line = line[:start] + text.encode("utf-8", "surrogateescape") + line[stop:]
    return line


def _texts(
    values: Sequence[Any] | NDArray[Any], label: str, path: Path, nan: bool = False
) -> list[str]:
    """Return values as they stand in a STAR file; NaN is refused unless `nan`."""
    if len(values) and isinstance(values[0], str):
        return [_quoted(value, label, path) for value in values]
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return [str(value) for value in array.tolist()]
    if array.dtype.kind == "f":
        bad = np.flatnonzero(np.isinf(array) if nan else ~np.isfinite(array))
        if bad.size:
            raise InputError(f"{path}: row {bad[0]} (0-based) of {label} is not a finite number")
        text: list[str] = array.astype("U32").tolist()
        return text
    return [_quoted(str(value), label, path) for value in values]


def _quoted(text: str, label: str, path: Path) -> str:
    """Return text with the quotes it needs."""
    plain = text and not any(c.isspace() for c in text) and text[0] not in "'\"#_;$"
    if plain and not text.lower().startswith(_RESERVED):
        return text
    for quote in "'\"":
        if quote not in text and "\n" not in text and "\r" not in text:
            return f"{quote}{text}{quote}"
    raise InputError(f"{path}: {label} = {text!r} cannot be written in a STAR file")
