"""Lists of stacks: text files that name one .mrcs per line.

Owns: reading the list and numbering the images through all its stacks. Does not own: the stacks'
pixels (`frazil.io.images`).
"""

from pathlib import Path

import numpy as np

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.mrc import MrcHeader, read_header, read_headers
from frazil.io.particles import PARTICLE_DTYPE, ParticleTable, empty_rows
from frazil.io.paths import NO_HINTS, Places, missing_message, resolve_stacks

_ANY_TABLE_BYTES = 64 << 20


def read_list(path: Path) -> list[str]:
    """Return the names in a list of stacks, in order; blank lines are skipped.

    Raises
    ------
    MissingFileError : no such file.
    InputError : not text, or no name in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: a text file naming one stack per line is wanted") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: the list names no stack")
    return names


def particles_from_txt(path: Path, places: Places = NO_HINTS) -> ParticleTable:
    """Return the images of all listed stacks, in the order of the list.

    Names are relative to the list's folder (see `frazil.io.paths`). A stack named twice
    gives its images twice. Poses and CTF are unknown; the pixel size is that of the headers.

    Raises
    ------
    MissingFileError : a stack is not there. InputError : it is no stack of square images.
    """
    path = Path(path)
    names = read_list(path)
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, row)
    files = resolve_stacks([*rows], path, places)
    found = read_headers(files)
    lost = zip(rows.values(), files, found, strict=True)
    missing = [(row, file) for row, file, header in lost if header is None]
    if missing:
        raise MissingFileError(missing_message(path, missing, files, places))
    headers = {name: header for name, header in zip(rows, found, strict=True) if header}
    return table_of_stacks([headers[name] for name in names], path)


def particles_from_mrc(path: Path) -> ParticleTable:
    """Return all images of one stack; poses and CTF are unknown."""
    path = Path(path)
    return table_of_stacks([read_header(path)], path)


def table_of_stacks(headers: list[MrcHeader], origin: Path) -> ParticleTable:
    """Return the table of every image of the given stacks, in order, repeats included.

    Raises
    ------
    CorruptDataError : a header says far more images than the file holds.
    """
    for header in headers:
        table_bytes = header.nz * PARTICLE_DTYPE.itemsize
        if table_bytes > _ANY_TABLE_BYTES + header.whole_images * header.frame_bytes:
            raise CorruptDataError(
                f"{header.path}: the header says {header.nz} images, the file holds "
                f"{header.whole_images}; copy it again"
            )
    files = [str(header.path.absolute()) for header in headers]
    sources = tuple(dict.fromkeys(files))
    numbers = {file: number for number, file in enumerate(sources)}
    rows = empty_rows(sum(header.nz for header in headers))
    start = 0
    for header, file in zip(headers, files, strict=True):
        stop = start + header.nz
        rows["source"][start:stop] = numbers[file]
        rows["index"][start:stop] = np.arange(header.nz)
        if header.pixel_size_ang > 0:
            rows["pixel_size_ang"][start:stop] = header.pixel_size_ang
        start = stop
    notes = [
        f"{header.path}: its header says it is a volume; its {header.nz} sections are read as "
        "images"
        for header in headers
        if header.is_volume
    ]
    boxes = {  # odd: Fourier images of side D+1
        file: header.nx - header.nx % 2 for header, file in zip(headers, files, strict=True)
    }
    return ParticleTable(
        rows,
        sources,
        next(iter(boxes.values())) if len(set(boxes.values())) == 1 else None,
        origin=str(origin),
        notes=tuple(notes),
        boxes_px=tuple(boxes.values()),
    )
