"""Records made from the source as they are read: what a store would hold, without packing it.

Owns: blocks of source images as blocks of records, in reading order. Does not own: the way of one
image to its codes (`prepared`), the order of an epoch and what is kept in memory (`frazil.loader`).

The codes of an image are those that packing with the same settings gives, bit for bit: both take
the steps of the shells from the same pre-sample, a pure function of table and seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import msgspec
import numpy as np
import torch
from torch import Tensor

from frazil.errors import InputError
from frazil.geometry.packing import HalfDisc
from frazil.io.particles import FLAG_NONFINITE, ParticleTable
from frazil.preprocess.blocks import Block
from frazil.preprocess.inputs import image_fingerprint
from frazil.preprocess.parallel import one_torch_thread
from frazil.preprocess.prepared import CodeScale, PreparedImages
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.statistics import reference_shell_rms
from frazil.store.codec import Codec
from frazil.store.manifest import BandRecord, Precision, bands_for_box, disc_rms
from frazil.store.records import empty_codes

# The loader reads a few blocks at a time. Unlike a store's, these are neighbours in the source, so
# they are small: a window of thousands of rows then holds a hundred random places of the source.
BLOCK_ROWS = 16


class LazyLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes, as in the manifest of a store: one shard, whose slots are images in reading order."""

    precision: Precision
    bands: list[BandRecord]
    images: int
    block_rows: int

    @property
    def shard_rows(self) -> list[int]:
        """Records of the only shard."""
        return [self.images]

    def band_count(self, box_px: int) -> int:
        """Return how many of the leading bands hold the disc of a box."""
        return bands_for_box(self.bands, box_px)


@final
@dataclass(frozen=True, eq=False)
class LazyStore:
    """Particles in their source files, read as if they were packed; threads may share it.

    Attributes
    ----------
    prepared : the images of the whole table; `wanted` (m,) are those that can be read, ascending.
    scale : what turns coefficients into codes; `sampled` images were read to find it.
    shell_rms : (D/2,) RMS of |F| over that sample; a store has it over all images.
    rows : (N,) those of the table; `slot` is the place in `wanted`, -1 of rows not asked for.
    """

    prepared: PreparedImages
    scale: CodeScale
    sampled: int
    shell_rms: np.ndarray
    wanted: np.ndarray
    rows: np.ndarray
    manifest: LazyLayout
    _gain: Tensor

    @classmethod
    def of(
        cls, table: ParticleTable, settings: PackSettings, rows: np.ndarray | None = None
    ) -> "LazyStore":
        """Return the records of a table; reads the pre-sample.

        Parameters
        ----------
        table : particles in input order, with the poses and CTF to be used.
        settings : those that packing would have.
        rows : (n,) the rows whose images will be asked for; default all.

        Raises
        ------
        InputError, MissingFileError, CorruptDataError : see `PreparedImages.of`.
        """
        prepared = PreparedImages.of(table, settings)
        power = prepared.sampled_power()
        finite = power[np.isfinite(power.sum(1))]
        shell_rms = np.sqrt(finite.sum(0) / (prepared.counts * max(len(finite), 1)))
        image = prepared.distinct.image_of_row
        wanted = np.unique(image if rows is None else image[rows])
        placed = prepared.sampling.stored_rows(prepared.table)
        slot = np.searchsorted(wanted, image)
        found = wanted[np.minimum(slot, len(wanted) - 1)] == image
        placed["shard"], placed["slot"], placed["flags"] = 0, np.where(found, slot, -1), 0
        layout = LazyLayout(
            precision=settings.precision,
            bands=[BandRecord(*band) for band in prepared.transform.disc.bands],
            images=len(wanted),
            block_rows=BLOCK_ROWS,
        )
        return cls(
            prepared,
            prepared.scale(reference_shell_rms(power, prepared.counts)),
            len(power),
            shell_rms,
            wanted,
            placed,
            layout,
            torch.full((len(wanted),), torch.nan),
        )

    @property
    def path(self) -> Path:
        """The particle file."""
        return Path(self.prepared.table.origin)

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the stacks."""
        return self.prepared.table.sources

    @property
    def count(self) -> int:
        """Number of particles (rows)."""
        return len(self.rows)

    @property
    def box_px(self) -> int:
        """Box of the records, px."""
        return self.prepared.transform.box_px

    @property
    def source_box_px(self) -> int:
        """Box of the images in the source, px."""
        return self.prepared.sampling.source_box_px

    @property
    def pixel_size_ang(self) -> float | None:
        """Pixel size of the records' box, Angstrom; None when unknown."""
        return self.prepared.sampling.pixel_size_ang

    @property
    def disc(self) -> HalfDisc:
        """The coefficients of a record, in order."""
        return self.prepared.transform.disc

    @property
    def codec(self) -> Codec:
        """The codec of the records."""
        return self.scale.codec

    def rms(self, box_px: int | None = None) -> float:
        """Return the RMS of |F| over the disc of a box, over the images of the pre-sample."""
        return disc_rms(self.shell_rms, self.box_px, box_px or self.box_px)

    def gains(self, rows: Tensor) -> Tensor:
        """Return (n,) float32 image gains of rows (n,); NaN where the image was not read yet."""
        slot = torch.from_numpy(self.rows["slot"][rows.numpy()].astype(np.int64))
        return self._gain[slot]

    @property
    def made_as_read(self) -> bool:
        """True."""
        return True

    def image_bytes(self, box_px: int) -> int:
        """Return the bytes of an image in its stack, whatever the box."""
        return self.prepared.images.bytes_of([0])

    def files(self, box_px: int) -> Iterator[Path]:
        """Yield the stacks."""
        return map(Path, self.prepared.table.sources)

    def identity(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return a digest of the source files as they are now, the images and the settings."""
        fingerprint = image_fingerprint(self.prepared.table, self.prepared.settings)
        return [np.frombuffer(fingerprint.encode(), np.uint8)]

    def band_tensors(self, count: int, bands: int) -> list[Tensor]:
        """Return empty code buffers (count, 2 P_b), one per leading band."""
        return empty_codes(self.manifest, count, bands)

    def read_blocks(
        self, shard: int, first: int, stop: int, out: Sequence[Tensor], keep_pages: bool = True
    ) -> None:
        """Fill one buffer per band with the codes of blocks [first, stop), read from the source.

        `shard` is 0. The kernel may keep what was read whatever `keep_pages` says: packing, or the
        next epoch, reads the same files.

        Raises
        ------
        InputError : an image has non-finite pixels; a store would leave its rows out.
        CorruptDataError : a stack became shorter since it was opened.
        """
        start = first * self.manifest.block_rows
        end = min(stop * self.manifest.block_rows, len(self.wanted))
        task = self.prepared.task_images
        with one_torch_thread():
            for part in range(start, end, task):
                slots = slice(part, min(part + task, end))
                block = self.prepared.encode(self.wanted[slots], self.scale)
                self._require_finite(slots, block)
                self._gain[slots] = torch.from_numpy(block.facts["gain"].copy())
                records = torch.from_numpy(block.records)
                for band, buffer in zip(self.manifest.bands, out, strict=False):
                    columns = records[:, 2 * band.start : 2 * band.stop]
                    buffer[slots.start - start : slots.stop - start].copy_(columns)

    def _require_finite(self, slots: slice, block: Block) -> None:
        """Raise InputError when an image has non-finite pixels; names a row that shows it."""
        bad = np.flatnonzero(block.facts["flags"] & FLAG_NONFINITE)
        if bad.size:
            row = int(np.flatnonzero(self.rows["slot"] == slots.start + int(bad[0]))[0])
            raise InputError(
                f"{self.prepared.describe_row(row)} has non-finite pixels; leave it out with "
                "--ind, or pack first (frazil preprocess), which finds and leaves out all such"
            )
