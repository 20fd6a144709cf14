"""A store in the making whose records several processes write: whole parts, then whole shards.

Owns: the files of the parts, and where the records of a shard lie in them. Does not own: who writes
which part (`frazil.preprocess.cluster`), the shards' own files (`writer`).

The writing order is cut into parts of `part_images` images. A part is one file with its records
sorted by shard and a checksum for each shard's, beside the facts of its images; it is renamed into
place when it is whole, so what is there is done, and a part that is written twice is written alike.
Parts lie in a folder named for the plan: a process that still works for an earlier plan finds its
folder gone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from frazil.errors import CorruptDataError, MissingFileError
from frazil.io.atomic import atomic_path, write_bytes_atomic, write_npy_atomic
from frazil.store.writer import PARTS_FOLDER, StorePlan, image_places

_SUM_DTYPE = np.dtype("<u8")


def parts_folder(folder: Path, fingerprint: str) -> Path:
    """Return where the parts of a plan lie in the folder of its unfinished store."""
    return folder / PARTS_FOLDER / fingerprint


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of one plan in the folder of its unfinished store.

    `shard` and `slot` (images,) are the places of the images in writing order.
    """

    folder: Path
    plan: StorePlan
    part_images: int
    shard: np.ndarray
    slot: np.ndarray

    @classmethod
    def of(cls, folder: Path, plan: StorePlan, part_images: int) -> "Parts":
        """Return the parts of a plan; computes the places of its images."""
        places = image_places(plan.images, plan.rows_per_shard, plan.seed)
        return cls(parts_folder(folder, plan.fingerprint), plan, part_images, *places)

    @property
    def count(self) -> int:
        """Number of parts."""
        return -(-self.plan.images // self.part_images)

    def images(self, number: int) -> slice:
        """Return the images of a part, in writing order."""
        start = number * self.part_images
        return slice(start, min(start + self.part_images, self.plan.images))

    def is_done(self, number: int) -> bool:
        """Return whether a part is there; a file of another size is not."""
        path, images = self._records_path(number), self.images(number)
        size_bytes = (images.stop - images.start) * self.plan.record_bytes
        size_bytes += len(self.plan.shard_rows) * _SUM_DTYPE.itemsize
        return path.is_file() and path.stat().st_size == size_bytes

    def write(self, number: int, records: np.ndarray, facts: np.ndarray, statistics: bytes) -> None:
        """Write a part: records (n, values) and facts (n,) in writing order, and its statistics.

        Raises
        ------
        BudgetError : the disk is full; parts that are done stay.
        """
        shard = self.shard[self.images(number)]
        write_npy_atomic(self._facts_path(number), facts)
        write_bytes_atomic(self._statistics_path(number), statistics)
        ordered = np.ascontiguousarray(records[np.argsort(shard, kind="stable")])
        stops = np.cumsum(np.bincount(shard, minlength=len(self.plan.shard_rows)))
        segments = np.split(ordered, stops[:-1])
        sums = np.array([xxhash.xxh3_64_intdigest(s.data) for s in segments], _SUM_DTYPE)
        with atomic_path(self._records_path(number)) as path, path.open("wb") as file:
            file.write(ordered.view(np.uint8).reshape(-1).data)
            file.write(sums.data)

    def facts(self) -> np.ndarray:
        """Return the facts of all images, in writing order.

        Raises
        ------
        MissingFileError : a part is not there.
        """
        paths = [self._facts_path(number) for number in range(self.count)]
        try:
            return np.concatenate([np.load(path, allow_pickle=False) for path in paths])
        except FileNotFoundError as error:
            raise MissingFileError(f"{error.filename}: lost; run the same command again") from error

    def statistics(self, number: int) -> bytes:
        """Return the statistics of a part."""
        return self._statistics_path(number).read_bytes()

    def shard_records(self, shard: int) -> np.ndarray:
        """Return the records (rows, values) of a shard in the order of their slots.

        Raises
        ------
        MissingFileError, CorruptDataError : a part is lost, or not what was written.
        """
        mine = np.flatnonzero(self.shard == shard)
        slots, part = self.slot[mine], mine // self.part_images
        starts = np.arange(0, self.plan.images, self.part_images)
        before = np.add.reduceat(self.shard < shard, starts)  # rows of earlier shards in each part
        rows = np.empty((len(mine), self.plan.record_values), self.plan.value_type)
        for number in np.unique(part).tolist():
            here = np.flatnonzero(part == number)
            rows[slots[here]] = self._read(number, shard, int(before[number]), len(here))
        return rows

    def _read(self, number: int, shard: int, first: int, count: int) -> np.ndarray:
        """Return a shard's `count` records of a part, which begin with record `first`."""
        path, images = self._records_path(number), self.images(number)
        found = np.empty((count, self.plan.record_values), self.plan.value_type)
        known = np.empty(1, _SUM_DTYPE)
        record_bytes = self.plan.record_bytes
        sums_at = (images.stop - images.start) * record_bytes
        try:
            with path.open("rb") as file:
                file.seek(first * record_bytes)
                whole = file.readinto(found.view(np.uint8).reshape(-1).data) == found.nbytes
                file.seek(sums_at + shard * _SUM_DTYPE.itemsize)
                whole = file.readinto(known.view(np.uint8).data) == known.nbytes and whole
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: lost; run the same command again") from error
        if not whole or xxhash.xxh3_64_intdigest(found.data) != known[0]:
            raise CorruptDataError(
                f"{path}: its records of shard {shard} are not what was written (checksum); "
                "remove it and run the same command again"
            )
        return found

    def _records_path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.bin"

    def _facts_path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.facts.npy"

    def _statistics_path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"
