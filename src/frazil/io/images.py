"""Images by row of a particle table, whatever stacks they lie in.

Owns: opening the input of a command (`open_particles`), the checks of every stack before anything
is read (`open_images`), and reading rows in few large requests. Does not own: single formats, nor
what is done to the images.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.cryosparc import particles_from_cs
from frazil.io.cryosparc_groups import is_job_folder
from frazil.io.direct import bypass_cache, is_cached
from frazil.io.mrc import MrcHeader, open_file, read_header, read_headers, read_open_images
from frazil.io.particles import ParticleTable
from frazil.io.paths import NO_HINTS, Places, missing_message
from frazil.io.star import particles_from_star
from frazil.io.text import particles_from_mrc, particles_from_txt

__all__ = ["Domain", "ImageSource", "open_images", "open_particles"]

Domain = Literal["real", "hartley"]
# What to say of a stack that was there at the start.
GONE = "is not there any more; put it back with its time of change (cp -p), and run the same again"
_MAX_OPEN_FILES = 128


def open_particles(
    path: Path,
    places: Places = NO_HINTS,
    *,
    poses: bool = True,
    class_index: int | None = None,
) -> ParticleTable:
    """Return the particles of a stack, .star, .cs, .csg, cryoSPARC job folder, .txt or .ft.txt.

    The kind goes by the suffix. The box comes from the metadata, or else from the first stack where
    that is there.

    Parameters
    ----------
    path : the input file.
    places : where the stacks may be, beside what the file says.
    poses : False leaves the poses of a .cs file out (one with poses by class is refused otherwise).
    class_index : the class to take of a cryoSPARC job that has several.

    Raises
    ------
    MissingFileError : no such file, or no such folder `places.datadir`.
    InputError : a kind that cannot be read, or bad content.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file")
    if places.datadir is not None and not places.datadir.is_dir():
        raise MissingFileError(f"--datadir {places.datadir}: no such folder")
    suffix = path.suffix.lower()
    if suffix in (".mrcs", ".mrc", ".st"):
        table = particles_from_mrc(path)
    elif suffix == ".txt":
        table = particles_from_txt(path, places)
    elif suffix == ".star":
        table = particles_from_star(path, places)
    elif suffix in (".cs", ".csg") or is_job_folder(path):
        table = particles_from_cs(path, places, class_index=class_index, poses=poses)
    else:
        raise InputError(
            f"{path}: particles in .mrcs, .star, .cs, .csg, .txt or .ft.txt, or the folder of a "
            "cryoSPARC job, are wanted"
        )
    if table.box_px is not None and not table.boxes_px:
        table = replace(table, boxes_px=(table.box_px,) * len(table.sources))
    if table.box_px is None and not table.boxes_px and len(table):
        first = Path(table.sources[table.rows["source"][0]])
        if first.is_file():
            header = read_header(first)
            table = replace(table, box_px=header.nx - header.nx % 2)
    return replace(table, places=places)


def open_images(
    table: ParticleTable,
    *,
    any_box: bool = False,
    past_cache: bool = False,
    mixed: bool = False,
) -> "ImageSource":
    """Return the images of a table, after checking every stack that it uses once.

    Parameters
    ----------
    table : particles; stacks that no row uses need not be there.
    any_box : accept a stack whose box is not the one that the metadata states.
    past_cache : read each image once and leave nothing in the page cache, but for stacks that are
        in it already.
    mixed : accept stacks of several boxes, each of that which the metadata state, if they do.

    Raises
    ------
    MissingFileError : a stack is not there (the first row that needs it, how many are missing).
    InputError : images that are not square, of odd or different box, or an index beyond the stack.
    CorruptDataError : a row's image is cut off.
    """
    if not len(table):
        raise InputError(f"{table.origin}: no particles in it")
    used, first_rows = np.unique(table.rows["source"], return_index=True)
    headers = _read_headers(table, used, first_rows)
    domain = _domain(table, headers)
    mixed = mixed and domain == "real"
    side_px = _largest_side(table, headers, first_rows, domain, mixed)
    if not any_box:
        _check_stated_boxes(table, headers, domain, mixed)
    _check_indices(table, headers)
    return ImageSource(table, headers, side_px - (domain == "hartley"), domain, past_cache)


def _check_stated_boxes(
    table: ParticleTable, headers: dict[int, MrcHeader], domain: Domain, mixed: bool
) -> None:
    """Raise InputError where a stack's images are not of the box that the metadata state."""
    for number, header in headers.items():
        box_px = header.nx - (domain == "hartley")
        # What nobody states was taken from the first stack.
        stated = table.boxes_px[number] if table.boxes_px else None if mixed else table.box_px
        if stated not in (None, box_px):
            raise InputError(
                f"{table.origin}: its box is {stated} px, but the images in {header.path} are "
                f"{box_px} px, so the pixel size may be wrong too; correct the file, or give the "
                "stacks it was written for"
            )


def _read_headers(
    table: ParticleTable, used: NDArray[np.int32], first_rows: NDArray[np.int64]
) -> dict[int, MrcHeader]:
    """Return the header of every used stack by its number; MissingFileError unless all are there.

    `used` and `first_rows` are (S,): numbers of stacks, and the first row that needs each.
    """
    names = [table.sources[number] for number in used.tolist()]
    headers = read_headers(names)
    rows = zip(first_rows.tolist(), names, headers, strict=True)
    missing = [(row, name) for row, name, header in rows if header is None]
    if missing:
        raise MissingFileError(_missing_line(table, missing, names))
    return {n: header for n, header in zip(used.tolist(), headers, strict=True) if header}


def missing_stacks(table: ParticleTable) -> str | None:
    """Return one line on the stacks that are not there; None when all that a row uses are."""
    used, first_rows = np.unique(table.rows["source"], return_index=True)
    names = [table.sources[number] for number in used.tolist()]
    rows = zip(first_rows.tolist(), names, strict=True)
    missing = [(row, name) for row, name in rows if not Path(name).is_file()]
    return _missing_line(table, missing, names) if missing else None


def _missing_line(table: ParticleTable, missing: list[tuple[int, str]], names: list[str]) -> str:
    origin = Path(table.origin)
    file = origin / "particles.cs" if origin.is_dir() else origin  # of a job's folder
    return missing_message(file, missing, names, table.places)


def _domain(table: ParticleTable, headers: dict[int, MrcHeader]) -> Domain:
    """Return "hartley" for cryoDRGN's preprocessed stacks, which are called .ft.mrcs."""
    fourier = [header.path.name.endswith(".ft.mrcs") for header in headers.values()]
    if all(fourier) or table.origin.endswith(".ft.txt"):
        return "hartley"
    if any(fourier):
        raise InputError(
            f"{table.origin}: mixes .ft.mrcs stacks (Fourier images) with ordinary ones; "
            "separate them"
        )
    return "real"


def _largest_side(
    table: ParticleTable,
    headers: dict[int, MrcHeader],
    first_rows: NDArray[np.int64],
    domain: Domain,
    mixed: bool,
) -> int:
    """Return the largest side of the images in px; check that they are square, and not odd.

    Unless `mixed`, they must be alike.
    """
    first = next(iter(headers.values()))
    for header, row in zip(headers.values(), first_rows.tolist(), strict=True):
        where = f"{table.origin}: row {row} (0-based): {header.path}"
        if header.nx != header.ny:
            raise InputError(
                f"{where} has images of {header.nx} x {header.ny} px; square ones are wanted"
            )
        if header.nx != first.nx and not mixed:
            raise InputError(
                f"{where} has images of {header.nx} px, {first.path} of {first.nx} px; "
                "pack them into a store, which resamples them (frazil preprocess -o X.frz)"
            )
        if header.nx % 2 != (domain == "hartley") or header.nx < 2:
            wanted = "an odd side (D+1)" if domain == "hartley" else "an even box"
            raise InputError(f"{where} has images of {header.nx} px; {wanted} is wanted")
    return max(header.nx for header in headers.values())


def _check_indices(table: ParticleTable, headers: dict[int, MrcHeader]) -> None:
    """Raise unless every row's image is in its stack, and whole."""
    size = len(table.sources)
    declared, whole = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for number, header in headers.items():
        declared[number], whole[number] = header.nz, header.whole_images
    source, index = table.rows["source"], table.rows["index"]
    bad = np.flatnonzero((index < 0) | (index >= declared[source]))
    if bad.size:
        header = headers[int(source[bad[0]])]
        raise InputError(
            f"{table.origin}: row {bad[0]} (0-based) wants image {index[bad[0]]} (0-based) of "
            f"{header.path}, which has {header.nz} ({bad.size} rows do so); give the stacks that "
            "the file was written for"
        )
    bad = np.flatnonzero(index >= whole[source])
    if bad.size:
        header = headers[int(source[bad[0]])]
        raise CorruptDataError(
            f"{table.origin}: row {bad[0]} (0-based) wants image {index[bad[0]]} (0-based) of "
            f"{header.path}, which is cut short: {header.whole_images} of {header.nz} images are "
            f"whole ({bad.size} rows are lost); copy the stack again, or leave them out with --ind"
        )


@final
class ImageSource:
    """Images of the rows of a particle table; made by `open_images`. Threads may share it.

    `box_px` is the box D of the images; of domain "hartley" (cryoDRGN's preprocessed stacks, float
    H = Re F - Im F with k = 0 at D/2) the arrays have the side `side_px` = D + 1. Of images of
    several boxes it is the largest, `sides_px` (N,) has those of all rows, and the rows that are
    read together must share one.
    """

    def __init__(
        self,
        table: ParticleTable,
        headers: dict[int, MrcHeader],
        box_px: int,
        domain: Domain,
        past_cache: bool = False,
    ) -> None:
        self.box_px = box_px
        self.side_px = box_px + 1 if domain == "hartley" else box_px
        self.domain: Domain = domain
        self.count = len(table)
        self.origin = table.origin
        self._headers = headers
        self._source = np.array(table.rows["source"])
        self._index = np.array(table.rows["index"])
        side_of_source = np.zeros(len(table.sources), np.int64)
        side_of_source[list(headers)] = [header.nx for header in headers.values()]
        self.sides_px = side_of_source[self._source]
        self._files = _OpenFiles(_MAX_OPEN_FILES, past_cache)

    def __len__(self) -> int:
        return self.count

    def __enter__(self) -> "ImageSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stacks; a later read opens them again."""
        self._files.close()

    def bytes_of(self, rows: ArrayLike) -> int:
        """Return the bytes on disk of the images of some rows, which nothing is read for."""
        used, counts = np.unique(self._source[np.asarray(rows)], return_counts=True)
        return sum(
            int(count) * self._headers[number].frame_bytes
            for number, count in zip(used.tolist(), counts, strict=True)
        )

    def read(self, rows: ArrayLike, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return images (n, side, side) float32 in the order asked.

        Requests are sorted by file and place, and neighbours are read together; rows that follow
        one another in their stack go straight into `out`.

        Parameters
        ----------
        rows : (n,) row numbers of the table, any order, repeats allowed.
        out : (n, side, side) float32, filled and returned when given.

        Raises
        ------
        InputError : a row that the table does not have.
        CorruptDataError : a stack became shorter since it was opened.
        """
        wanted = np.asarray(rows).astype(np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.count:
            raise InputError(
                f"{self.origin}: rows {wanted.min()} to {wanted.max()} wanted, there are "
                f"{self.count}"
            )
        if out is None:
            side_px = int(self.sides_px[wanted[0]]) if wanted.size else self.side_px
            out = np.empty((len(wanted), side_px, side_px), np.float32)
        if (self.sides_px[wanted] != out.shape[-1]).any():
            raise ValueError(f"images of {out.shape[-1]} px are wanted, some rows have others")
        source, index = self._source[wanted], self._index[wanted]
        order = np.lexsort((index, source))
        breaks = np.flatnonzero(np.diff(source[order])) + 1
        for places in np.split(order, breaks):
            if places.size:
                self._read_stack(int(source[places[0]]), index[places], places, out)
        return out

    def _read_stack(
        self,
        number: int,
        index: NDArray[np.int64],
        places: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        """Read ascending images `index` (m,) of one stack into out[places]."""
        header = self._headers[number]
        with self._files.opened(header.path) as descriptor:
            first, last = int(places[0]), int(places[-1]) + 1
            if last - first == len(places) and (np.diff(places) == 1).all():
                read_open_images(descriptor, header, index, out[first:last])
                return
            distinct, which = np.unique(index, return_inverse=True)
            out[places] = read_open_images(descriptor, header, distinct)[which]


class _OpenFiles:
    """At most `limit` idle file descriptors, the least recently used closed first; thread-safe.

    With `past_cache` those of files that are not in the page cache are read past it.
    """

    def __init__(self, limit: int, past_cache: bool) -> None:
        self._limit, self._past_cache = limit, past_cache
        self._lock = Lock()
        self._idle: OrderedDict[tuple[Path, int], int] = OrderedDict()
        self._token = 0

    @contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        """Yield a descriptor of `path` that no other thread uses meanwhile."""
        with self._lock:
            key = next((k for k in reversed(self._idle) if k[0] == path), None)
            descriptor = self._idle.pop(key) if key is not None else None
        if descriptor is None:
            try:
                descriptor = open_file(path)
            except MissingFileError as error:
                raise MissingFileError(f"{path}: {GONE}") from error
            if self._past_cache and not is_cached(path):
                bypass_cache(descriptor)
        try:
            yield descriptor
        finally:
            self._give_back(path, descriptor)

    def _give_back(self, path: Path, descriptor: int) -> None:
        """Keep a descriptor for later, and close the oldest beyond the limit."""
        with self._lock:
            self._token += 1
            self._idle[path, self._token] = descriptor
            oldest = self._idle.popitem(last=False)[1] if len(self._idle) > self._limit else None
        if oldest is not None:
            os.close(oldest)

    def close(self) -> None:
        """Close all idle descriptors."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for descriptor in idle.values():
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()
