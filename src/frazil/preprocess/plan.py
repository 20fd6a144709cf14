"""What packing will take, found from headers alone, and the refusal of what cannot fit.

Owns: bytes to read, to write and to hold in memory, and the threads that --memory allows. Does not
own: the sizes of a store (`frazil.store.sizes`), rates (`measure`), the wording (`report`).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from frazil.errors import BudgetError
from frazil.io.images import open_images
from frazil.io.particles import ParticleTable
from frazil.preprocess import fourier_stacks, pipeline, prepared
from frazil.preprocess.inputs import DistinctImages
from frazil.preprocess.samplings import describe_samplings, plan_samplings
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import SUB_BATCH
from frazil.store.budget import (
    allowance,
    free_disk_bytes,
    memory_flag,
    size_text,
)
from frazil.store.manifest import Precision, check_box
from frazil.store.sizes import StoreSize, record_bytes
from frazil.store.writer import partial_path

# Measured: what torch loads on first use, and the copies of a shard that sealing leaves behind.
LIBRARY_BYTES = 32 << 20
SEALING_COPIES = 3
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class PackPlan:
    """What packing (`fourier`: into cryoDRGN's stacks) takes.

    Attributes
    ----------
    size : of the store at the precision asked for.
    source_side_px, domain : of the images that are read; `source_bytes` in all.
    free_bytes : disk space at `out`, with what an unfinished store there holds already.
    memory_bytes : the ceiling of buffers, and who set it; `max_threads` as asked for.
    resampled : what is brought to another box and pixel size, in words.
    """

    size: StoreSize
    source_box_px: int
    source_side_px: int
    domain: str
    source_bytes: int
    out: Path
    free_bytes: int
    memory_bytes: int
    max_threads: int
    fourier: bool = False
    memory_why: str = "as asked for"
    resampled: tuple[str, ...] = ()

    def at(self, precision: Precision, box_px: int | None = None) -> StoreSize:
        """Return the size of the store at another precision or box."""
        size = self.size
        return replace(size, box_px=box_px or size.box_px, precision=precision)

    @property
    def output_bytes(self) -> int:
        """Bytes on disk when all is done."""
        if self.fourier:
            return self.size.particles * 4 * (self.size.box_px + 1) ** 2
        return self.size.disk_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes of disk that are needed on the way there."""
        return self.output_bytes if self.fourier else self.size.packing_disk_bytes

    @property
    def task_bytes(self) -> int:
        """Bytes that one thread works in: a task's images as read, as float32 and as codes."""
        box_px, side = self.size.box_px, self.source_side_px
        if self.fourier:
            images = max(1, fourier_stacks.BLOCK_BYTES // (4 * self.source_box_px**2))
            return images * (8 * side**2 + 4 * (box_px + 1) ** 2)
        image_bytes = 4 * (self.source_box_px + 1) ** 2
        images = max(1, prepared.TASK_BYTES // (image_bytes * SUB_BATCH)) * SUB_BATCH
        images = min(images, self.size.images)
        codes = 2 * record_bytes(box_px, "float32") + self.size.record_bytes
        # A few images windowed, their rows transformed, laid out as columns, transformed again.
        transforms = 4 * SUB_BATCH * 4 * side**2
        return images * (8 * side**2 + codes) + transforms

    def buffer_bytes(self, threads: int) -> int:
        """Return the most that packing adds to the memory of the program.

        Tasks, records that wait to be appended, and the larger of appending them and of sealing a
        shard. Freed memory does not go back to the system at once, so the parts add up; on sets
        of 400 to 12,000 images of 128 to 512 px this is 1.0 to 2.4 times what was measured. Of
        processes that write parts, each holds a part as blocks, joined, and sorted.
        """
        if self.size.in_parts:
            return threads * (self.task_bytes + LIBRARY_BYTES + 3 * self.size.shard_bytes)
        tasks = (threads + 1) * self.task_bytes + LIBRARY_BYTES
        if self.fourier:
            return tasks
        waiting = min(pipeline.APPEND_BYTES, self.size.images * self.size.record_bytes)
        return tasks + waiting + max(2 * waiting, SEALING_COPIES * self.size.shard_bytes)

    @property
    def threads(self) -> int:
        """Threads that fit into the ceiling, at most as many as were asked for, at least 1."""
        fitting = (
            n for n in range(self.max_threads, 1, -1) if self.buffer_bytes(n) <= self.memory_bytes
        )
        return next(fitting, 1)


def plan_packing(
    table: ParticleTable,
    out: Path,
    settings: PackSettings,
    fourier: bool = False,
    in_parts: bool = False,
) -> PackPlan:
    """Return the plan of packing a table; reads the headers of its stacks only.

    Parameters
    ----------
    out : NAME.frz, or the stack of the Fourier images; the disk that it is on counts.
    fourier : cryoDRGN's stacks are written instead of a store.
    in_parts : by several processes (--dask).

    Raises
    ------
    InputError, MissingFileError, CorruptDataError : see `open_images`; a box that does not fit.
    BudgetError : --memory is more than there is.
    """
    memory = allowance(settings.memory)
    resampled: tuple[str, ...] = ()
    with open_images(table, mixed=not fourier) as images:
        if fourier:
            box_px = settings.box_px or images.box_px
            check_box(box_px, images.box_px, "the images")
        else:
            sampling = plan_samplings(table, images, settings)
            box_px, resampled = sampling.box_px, describe_samplings(sampling)
        distinct = np.arange(len(table)) if fourier else DistinctImages.of(table).rows
        groups = max(1, len(table.optics_groups))
        return PackPlan(
            StoreSize(len(table), len(distinct), box_px, settings.precision, groups, in_parts),
            images.box_px,
            images.side_px,
            images.domain,
            images.bytes_of(distinct),
            out,
            free_disk_bytes(out) + _written_bytes(partial_path(out)),
            memory.bytes,
            settings.max_threads,
            fourier,
            memory.why,
            resampled,
        )


def settings_within(plan: PackPlan, settings: PackSettings) -> PackSettings:
    """Return the settings with the number of threads that fits the plan's memory."""
    return msgspec.structs.replace(settings, max_threads=plan.threads)


def check_plan(plan: PackPlan) -> None:
    """Refuse what cannot fit.

    Raises
    ------
    BudgetError : memory or disk is too small; names a change that would make it fit.
    """
    needed = plan.buffer_bytes(1)
    if needed > plan.memory_bytes:
        raise BudgetError(
            f"{plan.out}: packing with one thread takes {size_text(needed)} of buffers, "
            f"{size_text(plan.memory_bytes)} are allowed; give {memory_flag(needed)}"
        )
    if plan.disk_bytes > plan.free_bytes:
        raise BudgetError(
            f"{plan.out}: needs {size_text(plan.disk_bytes)} of disk, "
            f"{size_text(plan.free_bytes)} are free there; {_remedy(plan)}"
        )


def _remedy(plan: PackPlan) -> str:
    """Return the changes, each enough by itself, that would make the output fit the disk."""
    missing = size_text(plan.disk_bytes - plan.free_bytes)
    ways = [f"free {missing}", "write to another disk (-o)"]
    if not plan.fourier:
        asked = PRECISIONS.index(plan.size.precision)
        fitting = (
            f"--precision {name}"
            for name in reversed(PRECISIONS[:asked])
            if plan.at(name).packing_disk_bytes <= plan.free_bytes
        )
        ways += [way for way in (next(fitting, None), _smaller_box(plan)) if way]
    return ", or ".join(ways)


def _smaller_box(plan: PackPlan) -> str | None:
    """Return the -D of the largest box that fits, None when not even a quarter of it does."""
    box_px = plan.size.box_px
    if plan.domain == "hartley":
        return None
    boxes = range(box_px - 2, max(4, box_px // 4) - 1, -2)
    fitting = (
        box
        for box in boxes
        if plan.at(plan.size.precision, box).packing_disk_bytes <= plan.free_bytes
    )
    found = next(fitting, None)
    return None if found is None else f"-D {found}"


def _written_bytes(folder: Path) -> int:
    """Return the bytes that an unfinished store holds already."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
