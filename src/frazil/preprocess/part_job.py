"""One packing as a job that other processes take part in: all they need is a folder.

Owns: the description of the job in the unfinished store, and the work of one process on one part or
shard. Does not own: who does which (`cluster`), the files of parts (`frazil.store.parts`).
"""

import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from frazil import __version__
from frazil.errors import InputError, MissingFileError
from frazil.io.atomic import write_bytes_atomic, write_npy_atomic
from frazil.io.particles import ParticleTable
from frazil.preprocess.prepared import CodeScale, PreparedImages
from frazil.preprocess.settings import PackSettings
from frazil.store.parts import Parts, parts_folder
from frazil.store.writer import StorePlan, is_sealed, sealed_checksums, write_shard

_JOB_NAME = "job.json"
_ROWS_NAME = "rows.npy"


class _JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """job.json: everything but the rows of the table."""

    settings: PackSettings
    plan: StorePlan
    part_images: int
    reference: list[float]
    sources: list[str]
    box_px: int | None
    boxes_px: list[int]
    optics_groups: list[str]
    groups: list[str]
    blob_sign: int | None
    origin: str


class JobAddress(NamedTuple):
    """Where a job lies, which plan's it is, and the version of frazil that gives it out."""

    folder: str
    fingerprint: str
    program: str

    @classmethod
    def of(cls, folder: Path, plan: StorePlan) -> "JobAddress":
        """Return the address of a plan's job in the folder of its unfinished store."""
        return cls(str(folder.absolute()), plan.fingerprint, __version__)


@dataclass(frozen=True, eq=False)
class PartJob:
    """A packing in the folder of its unfinished store; each process opens it for itself."""

    folder: Path
    prepared: PreparedImages
    scale: CodeScale
    parts: Parts

    def encode(self, number: int) -> int:
        """Read, transform and write a part, unless it is there; return its number of images."""
        images = self.parts.images(number)
        if not self.parts.is_done(number):
            torch.set_num_threads(1)  # with others, transforms round differently
            task = self.prepared.task_images
            starts = range(images.start, images.stop, task)
            blocks = [
                self.prepared.encode(slice(start, min(start + task, images.stop)), self.scale)
                for start in starts
            ]
            records = np.concatenate([block.records for block in blocks])
            facts = np.concatenate([block.facts for block in blocks])
            sums = msgspec.json.encode([block.statistics.to_json() for block in blocks])
            self.parts.write(number, records, facts, sums)
        return images.stop - images.start

    def seal(self, shard: int) -> np.ndarray:
        """Write a shard from the parts, unless it is there; return its checksums."""
        folder, plan = self.folder, self.parts.plan
        if is_sealed(folder, plan, shard):
            return sealed_checksums(folder, plan, shard)
        return write_shard(folder, plan, shard, self.parts.shard_records(shard))


def part_images(plan: StorePlan, prepared: PreparedImages) -> int:
    """Return the images of a part: about a shard's worth, a whole number of blocks."""
    task = prepared.task_images
    return max(1, plan.rows_per_shard // task) * task


def write_job(folder: Path, prepared: PreparedImages, scale: CodeScale, plan: StorePlan) -> Parts:
    """Describe a packing in the folder of its unfinished store; return its parts."""
    table = prepared.table
    record = _JobRecord(
        settings=prepared.settings,
        plan=plan,
        part_images=part_images(plan, prepared),
        reference=scale.reference.tolist(),
        sources=list(table.sources),
        box_px=table.box_px,
        boxes_px=list(table.boxes_px),
        optics_groups=list(table.optics_groups),
        groups=list(table.groups),
        blob_sign=table.blob_sign,
        origin=table.origin,
    )
    parts = Parts.of(folder, plan, record.part_images)
    parts.folder.mkdir(parents=True, exist_ok=True)
    write_npy_atomic(parts.folder / _ROWS_NAME, table.rows)
    write_bytes_atomic(parts.folder / _JOB_NAME, msgspec.json.encode(record))
    return parts


def encode_part(address: JobAddress, number: int) -> int:
    """Return the images of a part, which this process has packed; see `PartJob.encode`."""
    return _opened(address).encode(number)


def seal_shard(address: JobAddress, shard: int) -> np.ndarray:
    """Return the checksums of a shard that this process has sealed; see `PartJob.seal`."""
    return _opened(address).seal(shard)


@lru_cache(maxsize=1)
def _opened(address: JobAddress) -> PartJob:
    """Return the job at an address.

    Raises
    ------
    MissingFileError : the folder cannot be seen from this machine.
    InputError : this process runs another version of frazil.
    """
    here, folder = socket.gethostname(), Path(address.folder)
    if address.program != __version__:
        raise InputError(
            f"{folder}: the worker on {here} has frazil {__version__}, {address.program} is "
            "wanted; install the same version everywhere"
        )
    parts = parts_folder(folder, address.fingerprint)
    try:
        record = msgspec.json.decode((parts / _JOB_NAME).read_bytes(), type=_JobRecord)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{folder}: the worker on {here} does not see it; give -o on a file system that all "
            "workers share"
        ) from error
    rows = np.load(parts / _ROWS_NAME, allow_pickle=False)
    table = ParticleTable(
        rows,
        tuple(record.sources),
        record.box_px,
        tuple(record.optics_groups),
        tuple(record.groups),
        record.blob_sign,
        record.origin,
        boxes_px=tuple(record.boxes_px),
    )
    prepared = PreparedImages.of(table, record.settings, past_cache=True)
    scale = prepared.scale(np.asarray(record.reference))
    return PartJob(folder, prepared, scale, Parts.of(folder, record.plan, record.part_images))
