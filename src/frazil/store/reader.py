"""Reading a store: open, read blocks with their checksums checked, decode.

Owns: the read-only view of a store and its file descriptors. Does not own: the order of reading
and batches (`frazil.loader`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.geometry.packing import HalfDisc, half_disc
from frazil.io.direct import read_past_cache, read_through_cache
from frazil.io.npy import load_npy, read_npy_header
from frazil.io.particles import PARTICLE_DTYPE, ParticleTable
from frazil.store.checksums import block_checksums, file_checksum
from frazil.store.codec import NUMPY_TYPES, Codec
from frazil.store.manifest import Manifest, read_manifest
from frazil.store.records import empty_codes
from frazil.store.writer import shard_path

_REMEDY = "restore the file or pack again"


@dataclass(frozen=True, eq=False)
class ParticleStore:
    """A committed store, read-only; safe to share between threads and processes.

    Attributes
    ----------
    path : the folder.
    manifest : everything but coefficients and rows.
    rows : (N,) structured, particles in the order of the input, memory-mapped.
    checksums : (blocks, bands) uint64; `first_block[s]` is the first block of shard s.
    notes : lines worth telling the user that are in no file, e.g. what the audit found.
    """

    path: Path
    manifest: Manifest
    rows: np.ndarray
    checksums: np.ndarray
    first_block: np.ndarray
    _shard_files: dict[tuple[int, int], "ShardFile"] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path | str) -> "ParticleStore":
        """Return the store in a folder; reads everything but the shards, and checks it.

        Raises
        ------
        MissingFileError : there is no store at `path`, or a file of it is lost.
        InputError : its format is newer than this program.
        CorruptDataError : a file is not the one that was packed.
        """
        folder = Path(path)
        return cls.of(folder, read_manifest(folder))

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> "ParticleStore":
        """Return the store in a folder whose manifest is known, and may not be written yet.

        Raises
        ------
        MissingFileError, CorruptDataError : see `open`.
        """
        _check_files(folder, manifest)
        _check_order(folder / "frequencies.npy", manifest)
        rows = _open_array(folder / "particles.npy", mapped=True)
        checksums = _open_array(folder / "checksums.npy")
        blocks = [-(-count // manifest.block_rows) for count in manifest.shard_rows]
        first_block = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)
        agree = (
            rows.dtype == PARTICLE_DTYPE
            and rows.shape == (manifest.particles,)
            and checksums.dtype == np.uint64
            and checksums.shape == (first_block[-1], len(manifest.bands))
        )
        if not agree:
            raise CorruptDataError(f"{folder}: rows or checksums are not those of its manifest")
        _check_places(folder / "particles.npy", rows, manifest)
        return cls(folder, manifest, rows, checksums, first_block)

    def with_rows(self, rows: np.ndarray) -> "ParticleStore":
        """Return the same store with other metadata (poses, CTF) of the same particles.

        Where a record lies, its gain and its flags stay those of the store.

        Raises
        ------
        InputError : another number of rows, or a row that is another image.
        """
        if len(rows) != len(self.rows):
            raise InputError(f"{self.path}: has {len(self.rows)} particles, not {len(rows)}")
        other = np.zeros(len(rows), bool)
        for column in ("source", "index"):
            other |= rows[column] != self.rows[column]
        if other.any():
            raise InputError(
                f"{self.path}: row {int(np.argmax(other))} (0-based) of the metadata belongs to "
                f"another image than that of the store ({int(other.sum())} rows do); "
                "give those of the particles that were packed, in their order"
            )
        rows = np.array(rows)
        for column in ("shard", "slot", "image_gain", "flags"):
            rows[column] = self.rows[column]
        return replace(self, rows=rows)

    def table(self) -> ParticleTable:
        """Return the particles as a table, e.g. to join other poses or CTF by row."""
        manifest = self.manifest
        return ParticleTable(
            np.array(self.rows),
            self.sources,
            manifest.processing.source_box_px,
            tuple(group.name for group in manifest.optics),
            tuple(manifest.groups),
            manifest.blob_sign,
            str(self.path),
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the stacks that images were read from."""
        return tuple(source.path for source in self.manifest.sources)

    @property
    def count(self) -> int:
        """Number of particles (rows)."""
        return self.manifest.particles

    @property
    def box_px(self) -> int:
        """Box of the packed images, px."""
        return self.manifest.box_px

    @property
    def source_box_px(self) -> int:
        """Box of the images before packing, px."""
        return self.manifest.processing.source_box_px

    @property
    def pixel_size_ang(self) -> float | None:
        """Pixel size of the packed box, Angstrom; None when unknown."""
        return self.manifest.pixel_size_ang

    @property
    def disc(self) -> HalfDisc:
        """The coefficients of a record, in order."""
        return half_disc(self.box_px)

    @property
    def codec(self) -> Codec:
        """The codec of the records."""
        steps = np.asarray(self.manifest.shells.step)
        return Codec.from_shells(self.manifest.precision, steps, self.disc)

    def rms(self, box_px: int | None = None) -> float:
        """Return the exact RMS of |F| over the disc of a box (default: the store's)."""
        return self.manifest.rms(box_px or self.box_px)

    @cached_property
    def _gain(self) -> Tensor:
        # A copy in one piece: rows are looked up batch by batch.
        return torch.from_numpy(np.array(self.rows["image_gain"]))

    def gains(self, rows: Tensor) -> Tensor:
        """Return (n,) float32 image gains of rows (n,)."""
        return self._gain[rows]

    @property
    def made_as_read(self) -> bool:
        """False: records lie in the shards."""
        return False

    def image_bytes(self, box_px: int) -> int:
        """Return the bytes of an image in the bands that a box needs."""
        bands = self.manifest.bands[: self.manifest.band_count(box_px)]
        return 2 * bands[-1].stop * np.dtype(NUMPY_TYPES[self.manifest.precision]).itemsize

    def files(self, box_px: int) -> Iterator[Path]:
        """Yield the shards' files that are read at a box, in their order."""
        return shard_files(self.path, self.manifest, box_px)

    def identity(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return arrays that differ when the images of these rows do."""
        places = self.rows[rows]
        return [*(places[name] for name in ("image_gain", "shard", "slot")), self.checksums]

    def band_tensors(self, count: int, bands: int) -> list[Tensor]:
        """Return empty code buffers (count, 2 P_b), one per leading band."""
        return empty_codes(self.manifest, count, bands)

    def read_blocks(
        self, shard: int, first: int, stop: int, out: Sequence[Tensor], keep_pages: bool = True
    ) -> None:
        """Fill one buffer per band with the rows of blocks [first, stop) of a shard.

        Parameters
        ----------
        out : contiguous (rows, 2 P_b) tensors of the store's type, for the leading bands.
        keep_pages : read through the page cache, where the next read will find the rows. If False,
            nothing is left there, so that a pass over a store larger than memory does not push out
            everything else.

        Raises
        ------
        CorruptDataError : a block's checksum differs or a file is short; names shard and rows.
        """
        block_rows = self.manifest.block_rows
        for band, buffer in enumerate(out):
            array = buffer.numpy()
            file = self.shard_file(shard, band)
            file.read_into(array, first * block_rows, keep_pages)
            expected = self.checksums[self.first_block[shard] + first :, band][: stop - first]
            bad = np.flatnonzero(block_checksums(array, block_rows) != expected)
            if bad.size:
                row = (first + int(bad[0])) * block_rows
                last = min(row + block_rows, self.manifest.shard_rows[shard]) - 1
                raise CorruptDataError(
                    f"{file.path}: rows {row} to {last} of shard {shard}, band {band} are not "
                    "what was packed (checksum); restore the file or pack again"
                )

    def block_range_rows(self, shard: int, first: int, stop: int) -> int:
        """Return how many rows blocks [first, stop) of a shard hold."""
        block_rows = self.manifest.block_rows
        return min(stop * block_rows, self.manifest.shard_rows[shard]) - first * block_rows

    def images(self, rows: np.ndarray, box_px: int | None = None) -> Tensor:
        """Return (n, P) complex64 coefficients of particles, in the units of the source.

        Random access, a block of rows per image: for pictures and checks, not for training.
        """
        disc, chosen = self.disc, self.rows[np.asarray(rows, np.int64)]
        out = torch.empty(len(chosen), len(disc), dtype=torch.complex64)
        bands, codec = len(self.manifest.bands), self.codec
        for i, row in enumerate(chosen):
            shard, slot = int(row["shard"]), int(row["slot"])
            block, offset = divmod(slot, self.manifest.block_rows)
            buffers = self.band_tensors(self.block_range_rows(shard, block, block + 1), bands)
            self.read_blocks(shard, block, block + 1, buffers)
            codes = torch.cat([buffer[offset : offset + 1] for buffer in buffers], dim=1)
            out[i] = codec.decode(codes, torch.tensor([float(row["image_gain"])]))[0]
        if box_px is None or box_px == self.box_px:
            return out
        return out[:, disc_columns(disc, half_disc(box_px))]

    def verify(self) -> Iterator[tuple[int, int]]:
        """Read everything and check it; yields (shard, shards) as it goes on.

        Raises
        ------
        MissingFileError, CorruptDataError : see `read_blocks`.
        """
        _check_files(self.path, self.manifest)
        bands, shards = len(self.manifest.bands), self.manifest.shard_rows
        for shard, count in enumerate(shards):
            blocks = -(-count // self.manifest.block_rows)
            self.read_blocks(shard, 0, blocks, self.band_tensors(count, bands), keep_pages=False)
            yield shard + 1, len(shards)

    def shard_file(self, shard: int, band: int) -> "ShardFile":
        """Return where the rows of one band of a shard lie; its header is checked once.

        Raises
        ------
        MissingFileError, CorruptDataError : the file is lost, or is not that shard.
        """
        key = (shard, band)
        if key not in self._shard_files:
            path = shard_path(self.path, shard, band)
            width = 2 * (self.manifest.bands[band].stop - self.manifest.bands[band].start)
            shape = (self.manifest.shard_rows[shard], width)
            kind = np.dtype(NUMPY_TYPES[self.manifest.precision])
            self._shard_files[key] = ShardFile.open(path, shape, kind)
        return self._shard_files[key]


@dataclass(frozen=True)
class ShardFile:
    """One .npy of rows, and where its data begin; opened for each read: no descriptor is held."""

    path: Path
    data_offset: int
    row_bytes: int

    @classmethod
    def open(cls, path: Path, shape: tuple[int, int], kind: np.dtype) -> "ShardFile":
        try:
            with path.open("rb") as file:
                found_shape, by_columns, found_kind = read_npy_header(file)
                offset = file.tell()
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: a shard is lost; {_REMEDY}") from error
        except ValueError as error:
            raise CorruptDataError(f"{path}: not a shard ({error}); {_REMEDY}") from error
        if (found_shape, by_columns, found_kind) != (shape, False, kind):
            raise CorruptDataError(
                f"{path}: holds {found_shape} {found_kind}, the manifest says {shape} {kind}; "
                f"{_REMEDY}"
            )
        return cls(path, offset, shape[1] * kind.itemsize)

    def read_into(self, out: np.ndarray, first_row: int, keep_pages: bool) -> None:
        """Fill a contiguous array with rows from first_row on; see `ParticleStore.read_blocks`."""
        position = self.data_offset + first_row * self.row_bytes
        read = read_through_cache if keep_pages else read_past_cache
        try:
            got = read(self.path, out.reshape(-1).view(np.uint8), position)
        except FileNotFoundError as error:
            raise MissingFileError(f"{self.path}: a shard is lost; {_REMEDY}") from error
        if got < out.nbytes:
            raise CorruptDataError(f"{self.path}: ends at byte {position + got}; {_REMEDY}")


def shard_files(folder: Path, manifest: Manifest, box_px: int) -> Iterator[Path]:
    """Yield the shards' files in a store's folder that are read at a box, in their order."""
    bands = range(manifest.band_count(box_px))
    for shard in range(len(manifest.shard_rows)):
        yield from (shard_path(folder, shard, band) for band in bands)


def disc_columns(larger: HalfDisc, smaller: HalfDisc) -> Tensor:
    """Return, for each coefficient of the smaller disc, its place in the larger one."""
    span = larger.box_px + 1
    key = larger.kx * span + larger.ky + larger.radius_px
    place = torch.empty(int(key.max()) + 1, dtype=torch.int64)
    place[key] = torch.arange(len(larger))
    return place[smaller.kx * span + smaller.ky + larger.radius_px]


def _open_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    try:
        return load_npy(path, mapped=mapped)
    except ValueError as error:
        raise CorruptDataError(f"{path}: cannot be read ({error}); {_REMEDY}") from error


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Raise unless the files beside the shards are those that were packed."""
    for name, expected in manifest.file_checksums.items():
        if file_checksum(folder / name) != expected:
            raise CorruptDataError(f"{folder / name}: is not what was packed (checksum); {_REMEDY}")


def _check_order(path: Path, manifest: Manifest) -> None:
    """Raise CorruptDataError unless records are in the order of this program's disc."""
    found = _open_array(path, mapped=True)
    box_px = manifest.box_px  # a disc that the file cannot be of is not made: it may be huge
    plausible = found.ndim == 2 and 0.3 * box_px**2 < len(found) < box_px**2
    disc = half_disc(box_px) if plausible else None
    if (
        disc is None
        or tuple((band.start, band.stop, band.radius_px) for band in manifest.bands) != disc.bands
        or not np.array_equal(found, torch.stack([disc.kx, disc.ky], 1).numpy())
    ):
        raise CorruptDataError(
            f"{path}: another order of coefficients than that of a {box_px} px box; {_REMEDY}"
        )


def _check_places(path: Path, rows: np.ndarray, manifest: Manifest) -> None:
    """Raise CorruptDataError unless every row's record and source are among those there are."""
    shards = np.asarray(manifest.shard_rows, np.int64)
    inside = (rows["source"] >= 0) & (rows["source"] < len(manifest.sources))
    inside &= (rows["shard"] >= 0) & (rows["shard"] < len(shards)) & (rows["slot"] >= 0)
    if not inside.all() or (rows["slot"] >= shards[rows["shard"]]).any():
        raise CorruptDataError(f"{path}: rows without a record or a source; {_REMEDY}")
