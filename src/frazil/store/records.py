"""What the loader needs of particles: records in blocks, and metadata of every row.

Owns: the interface. Does not own: where records come from; `frazil.store.reader` reads them from a
store, `frazil.preprocess.lazy` makes them from the source.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from frazil.geometry.packing import HalfDisc
from frazil.store.codec import TORCH_TYPES, Codec
from frazil.store.manifest import BandRecord, Precision


class RecordLayout(Protocol):
    """Sizes: see the fields of `Manifest`, which has them all."""

    @property
    def precision(self) -> Precision:
        """Numbers kept per coefficient."""

    @property
    def bands(self) -> list[BandRecord]:
        """Parts of a record, from low to high frequencies."""

    @property
    def images(self) -> int:
        """Number of records."""

    @property
    def block_rows(self) -> int:
        """Records of a block, the least that is read."""

    @property
    def shard_rows(self) -> list[int]:
        """Records of each shard."""

    def band_count(self, box_px: int) -> int:
        """Return how many of the leading bands hold the disc of a box."""


class ParticleRecords(Protocol):
    """Records of particles, ready to be streamed; threads may share them."""

    @property
    def path(self) -> Path:
        """The file or folder that messages name."""

    @property
    def manifest(self) -> RecordLayout:
        """Sizes of blocks and shards."""

    @property
    def rows(self) -> np.ndarray:
        """(N,) structured, see `PARTICLE_DTYPE`; `shard` and `slot` say where a record lies."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Stacks that the column `source` of the rows means."""

    @property
    def count(self) -> int:
        """N, the rows."""

    @property
    def box_px(self) -> int:
        """Box of the records, px."""

    @property
    def source_box_px(self) -> int:
        """Box of the images that the records were made of, px."""

    @property
    def pixel_size_ang(self) -> float | None:
        """Pixel size of the records' box, Angstrom; None when unknown."""

    @property
    def disc(self) -> HalfDisc:
        """The coefficients of a record, in order."""

    @property
    def codec(self) -> Codec:
        """The codec of the records."""

    def rms(self, box_px: int | None = None) -> float:
        """Return the RMS of |F| over the disc of a box."""

    def gains(self, rows: Tensor) -> Tensor:
        """Return (n,) float32 image gains of rows (n,) whose records have been read."""

    def band_tensors(self, count: int, bands: int) -> list[Tensor]:
        """Return empty code buffers (count, 2 P_b), one per leading band."""

    def read_blocks(
        self, shard: int, first: int, stop: int, out: Sequence[Tensor], keep_pages: bool = True
    ) -> None:
        """Fill one buffer per leading band with the codes of blocks [first, stop) of a shard."""

    @property
    def made_as_read(self) -> bool:
        """Whether records are made from images at each read, and not only taken from files."""

    def image_bytes(self, box_px: int) -> int:
        """Return the bytes that are read of an image at a box."""

    def files(self, box_px: int) -> Iterator[Path]:
        """Yield the files that are read at a box, in their order."""

    def identity(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return arrays that differ when the images of these rows do."""


def empty_codes(layout: RecordLayout, count: int, bands: int) -> list[Tensor]:
    """Return empty code buffers (count, 2 P_b), one per leading band."""
    widths = [2 * (band.stop - band.start) for band in layout.bands[:bands]]
    return [torch.empty(count, width, dtype=TORCH_TYPES[layout.precision]) for width in widths]
