"""What reading particles takes: bytes of an epoch, memory of the loader, and the time of the disk.

Owns: these figures, the lines that say them before a long command begins, and the refusal of what
does not fit. Does not own: the sizes (`frazil.store.sizes`), the limits (`frazil.store.budget`),
measuring (`frazil.preprocess.measure`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frazil.errors import BudgetError
from frazil.loader.order import CHUNK_BLOCKS
from frazil.loader.prefetch import READER_THREADS, ParticleLoader
from frazil.preprocess.measure import SAMPLE_BYTES, SAMPLE_S, read_rate
from frazil.store.budget import Allowance, memory_flag, size_text
from frazil.store.codec import NUMPY_TYPES
from frazil.store.records import RecordLayout
from frazil.store.sizes import LoaderSize


@dataclass(frozen=True)
class LoadingPlan:
    """What the loader reads, and the memory that it may take.

    Attributes
    ----------
    size : the images that are read in an epoch, and their codes.
    window_rows : particles that are shuffled together.
    path : the store, or the file that will become one.
    image_bytes : what is read of an image, when that is not its codes.
    """

    size: LoaderSize
    window_rows: int
    memory: Allowance
    path: Path
    image_bytes: int | None = None

    @classmethod
    def of(cls, loader: ParticleLoader, memory: Allowance) -> "LoadingPlan":
        """Return the plan of a loader that is ready to stream."""
        store, images = loader.store, int(loader.layout.stored.sum())
        size = loader_size(store.manifest, loader.box_px, images)
        read = store.image_bytes(loader.box_px)
        return cls(size, loader.settings.window_rows, memory, store.path, read)

    @property
    def epoch_bytes(self) -> int:
        """Bytes that are read when all images are."""
        return self.size.images * (self.image_bytes or self.size.row_bytes)

    @property
    def window_bytes(self) -> int:
        """Bytes of the two windows: one being used, one being read."""
        return self.size.window_bytes(self.window_rows)

    @property
    def cached_bytes(self) -> int:
        """Bytes of the two windows and of all images kept in memory."""
        return self.window_bytes + self.size.whole_bytes

    @property
    def cached(self) -> bool:
        """Whether all images are kept in memory after the first epoch."""
        return self.cached_bytes <= self.memory.bytes

    def check(self) -> None:
        """Refuse windows that do not fit.

        Raises
        ------
        BudgetError : names a change that would make them fit.
        """
        needed = self.window_bytes
        if needed <= self.memory.bytes:
            return
        rows = self.size.window_rows_within(self.memory.bytes)
        smaller = f"--shuffler-size {rows} or " if rows > 0 else ""
        raise BudgetError(
            f"{self.path}: two windows of the loader take {size_text(needed)}, {self.memory}; "
            f"give {smaller}{memory_flag(needed)}"
        )

    def reading_line(self, period: str = "epoch") -> str:
        """Return what is read in an epoch, or in another period."""
        each = self.image_bytes or self.size.row_bytes
        return (
            f"plan: read {size_text(self.epoch_bytes)} per {period} ({self.size.images} images, "
            f"{size_text(each)} each) on {READER_THREADS} threads"
        )

    def memory_line(self) -> str:
        """Return how much memory the loader takes, and what allows it."""
        windows = f"two windows of {min(self.window_rows, self.size.images)} particles"
        if self.cached:
            held = f"{size_text(self.cached_bytes)} of memory ({windows}, and all images cached)"
        else:
            held = (
                f"{size_text(self.window_bytes)} of memory ({windows}; all images would take "
                f"{size_text(self.cached_bytes)}, so they are streamed in every epoch)"
            )
        return f"plan: {held}; {self.memory}"

    def disk_line(self, files: Iterable[Path]) -> str | None:
        """Measure the disk for a second at most; None where an epoch is hardly more than that."""
        if self.cached or self.epoch_bytes <= SAMPLE_BYTES:
            return None
        rate = read_rate(files, most_s=SAMPLE_S)
        seconds = self.epoch_bytes / rate.bytes_per_s
        return (
            f"plan: the disk gives {size_text(rate.bytes_per_s)}/s (measured on "
            f"{size_text(rate.sample_bytes)}): {duration_text(seconds)} to read an epoch"
        )


def loader_size(manifest: RecordLayout, box_px: int, images: int | None = None) -> LoaderSize:
    """Return what some images of a store (default: all) take at a box, leading bands only."""
    values = 2 * manifest.bands[manifest.band_count(box_px) - 1].stop
    row_bytes = values * np.dtype(NUMPY_TYPES[manifest.precision]).itemsize
    count = manifest.images if images is None else images
    return LoaderSize(count, row_bytes, CHUNK_BLOCKS * manifest.block_rows)


def duration_text(seconds: float) -> str:
    """Return a time with two units at most, e.g. "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
