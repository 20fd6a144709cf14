"""The manifest of a store: everything about it that is not a coefficient or a particle row.

Owns: the fields of manifest.json and their checks. Does not own: how the figures come about
(`frazil.preprocess`), nor the bytes of the records (`codec`).
"""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.atomic import write_bytes_atomic
from frazil.io.npy import one_line

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
Precision = Literal["int8", "float16", "float32"]


class BandRecord(msgspec.Struct, frozen=True):
    """Coefficients [start, stop) of a record, with |k| <= radius_px, in one file per shard."""

    start: int
    stop: int
    radius_px: int


class SourceFile(msgspec.Struct, frozen=True):
    """One stack that images were read from, as it was then."""

    path: str
    size_bytes: int
    mtime_ns: int


class Sampling(msgspec.Struct, frozen=True):
    """Particles whose images have one box and pixel size; the latter is None when unknown."""

    box_px: int
    pixel_size_ang: float | None
    particles: int


class Processing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was done to the images, in order.

    `order` is window-first (window at the source's box, then Fourier crop) or crop-first. The
    window is (inner, outer) as fractions of half the box, or None. `sign` multiplied the images;
    stored particles are dark, so it is -1 for light ones. `resampled` lists the samplings of the
    source when they were brought to one; `source_box_px` is then the box of the store.
    """

    source_box_px: int
    order: Literal["window-first", "crop-first"]
    window: tuple[float, float] | None
    sign: int
    resampled: list[Sampling] = []


class ShellTable(msgspec.Struct, frozen=True):
    """Per shell r = 1 .. D/2 (ring (r-1, r] in cycles per box), over all images.

    `step` decodes; `rms` is the root mean square of |F|, exact; `error_rms` is that of the stored
    minus the true coefficients; `clipped` counts codes at the end of the range.
    """

    step: list[float]
    rms: list[float]
    error_rms: list[float]
    clipped: list[int]


class OpticsGroup(msgspec.Struct, frozen=True):
    """Name, number of images and per-shell RMS of one optics group."""

    name: str
    images: int
    rms: list[float]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of format 1. Counts: particles are rows, images are distinct records."""

    format: int = FORMAT_VERSION
    program: str
    command: str
    box_px: int
    pixel_size_ang: float | None
    processing: Processing
    precision: Precision
    tile_px: int
    bands: list[BandRecord]
    particles: int
    images: int
    rows_per_shard: int
    block_rows: int
    shard_rows: list[int]
    seed: int
    shells: ShellTable
    optics: list[OpticsGroup]
    groups: list[str]
    blob_sign: int | None
    has_pose: bool
    has_shift: bool
    has_ctf: bool
    rows_in: int
    dropped: dict[str, int]
    flagged: dict[str, int]
    origin: str
    sources: list[SourceFile]
    fingerprint: str
    file_checksums: dict[str, str]

    def rms(self, box_px: int) -> float:
        """Return the exact root mean square of |F| over the disc of a box <= box_px of the store.

        Raises
        ------
        InputError : the box is odd or larger than the store's.
        """
        return disc_rms(np.asarray(self.shells.rms), self.box_px, box_px)

    def band_count(self, box_px: int) -> int:
        """Return how many of the leading bands hold the disc of a box of side box_px."""
        return bands_for_box(self.bands, box_px)


def disc_rms(shell_rms: np.ndarray, stored_px: int, box_px: int) -> float:
    """Return the RMS of |F| over the disc of a box, from that of each shell of the stored box.

    Raises
    ------
    InputError : the box is odd or larger than the stored one.
    """
    check_box(box_px, stored_px, "the store")
    radius = box_px // 2
    counts = shell_counts(stored_px)[:radius]
    return float(np.sqrt((shell_rms[:radius] ** 2 * counts).sum() / counts.sum()))


def bands_for_box(bands: list[BandRecord], box_px: int) -> int:
    """Return how many of the leading bands hold the disc of a box of side box_px."""
    needed = [i for i, band in enumerate(bands) if band.radius_px >= box_px // 2]
    return needed[0] + 1


def shell_counts(box_px: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return (D/2,) the number of half-plane coefficients in each shell."""
    from frazil.geometry.packing import half_disc

    return np.bincount(half_disc(box_px).shell.numpy(), minlength=box_px // 2 + 1)[1:]


def check_box(box_px: int, largest_px: int, of_what: str) -> None:
    """Raise InputError unless box_px is even, at least 4, and at most largest_px."""
    if box_px % 2 or box_px < 4:
        raise InputError(f"-D {box_px}: the box must be an even number of pixels, at least 4")
    if box_px > largest_px:
        raise InputError(
            f"-D {box_px}: larger than the box of {of_what} ({largest_px} px); "
            f"give an even number up to {largest_px}"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, indented for people, into an unfinished store's folder."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_bytes_atomic(folder / MANIFEST_NAME, text + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store.

    Raises
    ------
    MissingFileError : the folder or its manifest is not there.
    InputError : the format is newer than this program.
    CorruptDataError : the manifest cannot be read.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        if folder.with_name(folder.name + ".partial").is_dir():
            raise MissingFileError(
                f"{folder}: packing was not finished; run the same preprocess command to go on"
            )
        raise MissingFileError(f"{folder}: not a particle store (no {MANIFEST_NAME} in it)")
    text = path.read_bytes()
    try:
        version = msgspec.json.decode(text, type=_Version).format
        if version > FORMAT_VERSION:
            raise InputError(
                f"{path}: format {version} is newer than this program reads "
                f"({FORMAT_VERSION}); install a newer frazil"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptDataError(f"{path}: cannot be read ({one_line(error)}); pack again") from error
    _check_consistent(path, manifest)
    return manifest


class _Version(msgspec.Struct, frozen=True):
    format: int


def _check_consistent(path: Path, manifest: Manifest) -> None:
    """Raise CorruptDataError when figures of a manifest contradict each other."""
    shells = manifest.shells
    lengths = {len(shells.step), len(shells.rms), len(shells.error_rms), len(shells.clipped)}
    edges = [edge for band in manifest.bands for edge in (band.start, band.stop)]
    agree = (
        lengths == {manifest.box_px // 2}
        and manifest.box_px >= 4
        and manifest.box_px % 2 == 0
        and sum(manifest.shard_rows) == manifest.images
        and all(0 < rows <= manifest.rows_per_shard for rows in manifest.shard_rows)
        and len(edges) > 0
        and edges[0] == 0
        and edges[1:-1:2] == edges[2::2]
        and manifest.block_rows > 0
    )
    if not agree:
        raise CorruptDataError(f"{path}: its figures contradict each other; pack again")
