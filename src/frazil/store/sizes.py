"""How many bytes a store takes, on disk and in the loader, before it is there.

Owns: arithmetic on counts, boxes and precisions. Does not own: limits (`budget`) and what is
measured (`frazil.preprocess.measure`).
"""

from dataclasses import dataclass

import numpy as np

from frazil.geometry.packing import half_disc
from frazil.io.particles import PARTICLE_DTYPE
from frazil.store.codec import NUMPY_TYPES
from frazil.store.manifest import Precision
from frazil.store.writer import BLOCK_ROWS, FACTS_DTYPE, rows_per_shard

_NPY_HEADER_BYTES = 128
_LONG_NPY_HEADER_BYTES = 640  # of particles.npy, which names its columns
_MANIFEST_BYTES = 2500
_NUMBER_BYTES = 25  # of a float in manifest.json, with its indentation


def record_bytes(box_px: int, precision: Precision) -> int:
    """Return the bytes of one image: the codes of the half-plane disc."""
    return 2 * len(half_disc(box_px)) * np.dtype(NUMPY_TYPES[precision]).itemsize


@dataclass(frozen=True)
class StoreSize:
    """A store of `images` distinct images and `particles` rows, at a box and a precision.

    `in_parts` says that several processes write it (`frazil.store.parts`).
    """

    particles: int
    images: int
    box_px: int
    precision: Precision
    optics_groups: int = 1
    in_parts: bool = False

    @property
    def record_bytes(self) -> int:
        """Bytes of one image."""
        return record_bytes(self.box_px, self.precision)

    @property
    def shard_bytes(self) -> int:
        """Bytes of the largest shard."""
        return min(rows_per_shard(self.record_bytes), self.images) * self.record_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files of the finished store."""
        disc = half_disc(self.box_px)
        bands = len(disc.bands)
        shard_rows = rows_per_shard(self.record_bytes)
        shards = -(-self.images // shard_rows)
        blocks = self.images // BLOCK_ROWS + shards
        numbers = (4 + self.optics_groups) * (self.box_px // 2)
        return (
            self.images * self.record_bytes
            + shards * bands * _NPY_HEADER_BYTES
            + self.particles * PARTICLE_DTYPE.itemsize
            + _LONG_NPY_HEADER_BYTES
            + blocks * bands * 8  # checksums.npy
            + len(disc) * 4  # frequencies.npy
            + 2 * _NPY_HEADER_BYTES
            + _MANIFEST_BYTES
            + numbers * _NUMBER_BYTES
        )

    @property
    def packing_disk_bytes(self) -> int:
        """Bytes on disk while it is packed.

        Beside the store, the bucket that is being sealed; or all parts, and the input's rows.
        """
        twice = self.shard_bytes
        if self.in_parts:
            twice = self.images * self.record_bytes + self.particles * PARTICLE_DTYPE.itemsize
        return self.disk_bytes + twice + self.images * FACTS_DTYPE.itemsize


@dataclass(frozen=True)
class LoaderSize:
    """The loader's codes for some images, `row_bytes` each: those of the bands that it needs."""

    images: int
    row_bytes: int
    chunk_rows: int

    def window_bytes(self, window_rows: int) -> int:
        """Return the bytes of the two windows; a window ends with the chunk that fills it."""
        return 2 * min(window_rows + self.chunk_rows, self.images) * self.row_bytes

    @property
    def whole_bytes(self) -> int:
        """Bytes of all images: what an epoch reads, and what a cache of all of them takes."""
        return self.images * self.row_bytes

    def window_rows_within(self, budget_bytes: int) -> int:
        """Return the largest window that fits into a budget; not positive when none does."""
        return budget_bytes // (2 * self.row_bytes) - self.chunk_rows
