"""Writing a store: append in any number of blocks, survive a kill, appear all at once.

Owns: the partial folder, its journal, the buckets, the sealing of shards and the final rename.
Does not own: what the records mean.

While packing, NAME.frz.partial holds one bucket per shard. Image i of the writing order goes to
the shard and slot of a seeded permutation, so after n images the length of every bucket is known
and a resume is a truncation. Sealing permutes a bucket into its slots, splits it into bands and
writes each as a .npy with checksums. Renaming the folder commits.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import msgspec
import numpy as np

from frazil.errors import BudgetError, CorruptDataError, OutputExistsError
from frazil.io.atomic import write_bytes_atomic, write_npy_atomic
from frazil.store.checksums import block_checksums, file_checksum
from frazil.store.manifest import MANIFEST_NAME, BandRecord, Manifest, write_manifest

SHARD_BYTES = 64 << 20
BLOCK_ROWS = 64
# Records that are read of a bucket at a time, and put into their slots.
SEALED_TOGETHER = 512
_JOURNAL = "journal.json"
# Where several processes write (`parts`); a lone one appends to buckets.
PARTS_FOLDER = "parts"
SHARDS_FOLDER = "shards"
# What is found out about an image while it is packed. Of the pixels of some rows: mean,
# standard deviation, lowest, highest; of its coefficients: mean |F|^2 at low, mid and high ones.
PIXEL_FACTS = ("mean", "std", "lowest", "highest")
BAND_FACTS = ("low", "mid", "high")
FACTS_DTYPE = np.dtype(
    [("gain", "<f4"), ("flags", "<u4"), *((name, "<f4") for name in PIXEL_FACTS + BAND_FACTS)]
)


class StorePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a store before the first image: its layout and its identity.

    `fingerprint` stands for the settings and the sources: a partial store of another fingerprint
    is never continued.
    """

    images: int
    record_values: int
    value_type: str
    bands: list[BandRecord]
    rows_per_shard: int
    block_rows: int
    seed: int
    fingerprint: str

    @property
    def shard_rows(self) -> list[int]:
        """Rows of every shard; all but the last are full."""
        full, rest = divmod(self.images, self.rows_per_shard)
        return [self.rows_per_shard] * full + ([rest] if rest else [])

    @property
    def record_bytes(self) -> int:
        """Bytes of one record, all bands."""
        return self.record_values * np.dtype(self.value_type).itemsize


class _Journal(msgspec.Struct, frozen=True):
    plan: StorePlan
    facts_bytes: int  # of an image; a journal of a version that knew less of it lacks this field
    images_done: int
    state: Any


def rows_per_shard(record_bytes: int) -> int:
    """Return the rows of a shard of about 64 MB, a whole number of blocks."""
    return max(1, SHARD_BYTES // (record_bytes * BLOCK_ROWS)) * BLOCK_ROWS


def image_places(images: int, rows_per_shard: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (shard, slot), each (images,) int32: a seeded random permutation of all places."""
    place = np.random.Generator(np.random.PCG64(seed)).permutation(images)
    shard, slot = np.divmod(place, rows_per_shard)
    return shard.astype(np.int32), slot.astype(np.int32)


def partial_path(out: Path) -> Path:
    """Return the folder in which a store is being written."""
    return out.with_name(out.name + ".partial")


def shard_path(folder: Path, shard: int, band: int) -> Path:
    """Return the file of one band of one shard."""
    return folder / SHARDS_FOLDER / f"{shard:05d}.b{band}.npy"


def write_shard(folder: Path, plan: StorePlan, shard: int, rows: np.ndarray) -> np.ndarray:
    """Write the bands of a shard's records (rows, values); return checksums (blocks, bands)."""
    (folder / SHARDS_FOLDER).mkdir(exist_ok=True)
    sums = []
    for number, band in enumerate(plan.bands):
        part = np.ascontiguousarray(rows[:, 2 * band.start : 2 * band.stop])
        write_npy_atomic(shard_path(folder, shard, number), part)
        sums.append(block_checksums(part, plan.block_rows))
    return np.stack(sums, axis=1)


def is_sealed(folder: Path, plan: StorePlan, shard: int) -> bool:
    """Return whether a shard was written whole; its last band is written last."""
    return shard_path(folder, shard, len(plan.bands) - 1).exists()


def sealed_checksums(folder: Path, plan: StorePlan, shard: int) -> np.ndarray:
    """Return the checksums (blocks, bands) of a shard that was written already."""
    paths = [shard_path(folder, shard, band) for band in range(len(plan.bands))]
    sums = [block_checksums(np.load(path, allow_pickle=False), plan.block_rows) for path in paths]
    return np.stack(sums, axis=1)


class StoreWriter:
    """One store being written. Use as a context manager; only `finish` makes it a store."""

    def __init__(self, out: Path, plan: StorePlan, overwrite: bool = False) -> None:
        """Begin a store, or continue the partial one of the same plan.

        Raises
        ------
        OutputExistsError : `out` exists (unless `overwrite`), another process writes it, or a
            partial store of other settings or sources is there (unless `overwrite`).
        CorruptDataError : the partial store lost bytes that its journal knows.
        """
        self.out, self.plan, self.overwrite = out, plan, overwrite
        self.folder = partial_path(out)
        _finish_cleaning(out)
        if (out.exists() or out.is_symlink()) and not overwrite:
            raise OutputExistsError(f"{out}: exists already; give --overwrite to replace it")
        if overwrite and out.exists() and not (out / MANIFEST_NAME).is_file():
            raise OutputExistsError(f"{out}: is not a particle store, so it is not replaced")
        self.images_done = 0
        self.state: Any = None
        self.shard, self.slot = image_places(plan.images, plan.rows_per_shard, plan.seed)
        self._lock = self._take_lock()
        try:
            self._begin_or_continue()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()

    def append(self, records: np.ndarray, facts: np.ndarray) -> None:
        """Append the records (n, record_values) and facts (n,) of the next n images.

        Raises
        ------
        BudgetError : the disk is full; what was committed stays and can be continued.
        """
        stop = self.images_done + len(records)
        shards = self.shard[self.images_done : stop]
        order = np.argsort(shards, kind="stable")
        present, first = np.unique(shards[order], return_index=True)
        try:
            for shard, rows in zip(present, np.split(order, first[1:]), strict=True):
                _append(self._bucket(shard), records[rows])
            _append(self._facts_path, facts)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise BudgetError(
                    f"{self.folder}: the disk is full after {self.images_done} of "
                    f"{self.plan.images} images; free some space and run the same command to go on"
                ) from error
            raise
        self.images_done = stop

    def facts(self) -> np.ndarray:
        """Return the facts (gain and flags) of all images appended so far, in writing order."""
        return np.fromfile(self._facts_path, FACTS_DTYPE)

    def commit(self, state: Any) -> None:
        """Make what was appended survive a crash; `state` (JSON) comes back on resume."""
        for path in (self.folder / "buckets").iterdir():
            _fsync(path)
        self.state = state
        self._write_journal()

    def seal(self, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> list[np.ndarray]:
        """Make the shards of what was appended; return the checksums (blocks, bands) of each.

        Parameters
        ----------
        progress : wraps the shard numbers.
        """
        if self.images_done != self.plan.images:
            raise ValueError(f"{self.images_done} of {self.plan.images} images were appended")
        return [self._seal(shard) for shard in progress(range(len(self.plan.shard_rows)))]

    def finish(
        self,
        arrays: dict[str, np.ndarray],
        sums: list[np.ndarray],
        make_manifest: Callable[[dict[str, str]], Manifest],
    ) -> Path:
        """Write arrays and manifest beside the sealed shards; give the folder its final name.

        Parameters
        ----------
        arrays : NAME.npy files to write beside the shards (particles, frequencies).
        sums : checksums of the shards, as `seal` returns them.
        make_manifest : gets the checksums of the arrays' files, returns the manifest.
        """
        arrays = {**arrays, "checksums": np.concatenate(sums)}
        checksums = {}
        for name, array in arrays.items():
            path = self.folder / f"{name}.npy"
            write_npy_atomic(path, array)
            checksums[path.name] = file_checksum(path)
        write_manifest(self.folder, make_manifest(checksums))
        self._replace()
        return self.out

    def _replace(self) -> None:
        """Put the finished folder in place of what is at `out`, then remove what packing needed.

        The journal and the lock go last: a kill before the rename leaves a partial folder that can
        be finished, and nobody else can begin to write into it.
        """
        old = self.out.with_name(f".{self.out.name}.old")
        _remove(old)  # of a replacement that was interrupted
        if self.out.exists() or self.out.is_symlink():
            self.out.rename(old)
        self.folder.rename(self.out)
        _fsync(self.out.parent)
        _remove(old)
        _clean(self.out)

    def _seal(self, shard: int) -> np.ndarray:
        """Write one shard from its bucket; return its checksums (blocks, bands)."""
        bucket = self._bucket(shard)
        if not bucket.exists():  # sealed before an interruption
            return sealed_checksums(self.folder, self.plan, shard)
        sums = write_shard(self.folder, self.plan, shard, self._rows_by_slot(shard))
        bucket.unlink()
        return sums

    def _rows_by_slot(self, shard: int) -> np.ndarray:
        """Return the records of a bucket, (rows, record_values), in the order of their slots."""
        slots, values = self.slot[self.shard == shard], self.plan.record_values
        rows = np.empty((len(slots), values), self.plan.value_type)
        few = np.empty((min(SEALED_TOGETHER, len(slots)), values), self.plan.value_type)
        with self._bucket(shard).open("rb", buffering=0) as file:
            for start in range(0, len(slots), len(few)):
                part = few[: len(slots) - start]
                if file.readinto(part.view(np.uint8).reshape(-1).data) != part.nbytes:
                    raise CorruptDataError(
                        f"{self._bucket(shard)}: is cut; remove {self.folder} and pack again"
                    )
                rows[slots[start : start + len(part)]] = part
        return rows

    @property
    def _facts_path(self) -> Path:
        return self.folder / "buckets" / "facts.bin"

    def _bucket(self, shard: int) -> Path:
        return self.folder / "buckets" / f"{shard:05d}.bin"

    def _take_lock(self) -> IO[bytes]:
        (self.folder / "buckets").mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise OutputExistsError(
                f"{self.out}: another process is writing it; wait for it, or choose another name"
            ) from error
        return lock

    def _begin_or_continue(self) -> None:
        journal = self._read_journal()
        self._remove_temporaries()
        if journal is None:
            self._write_journal()
            return
        self.images_done, self.state = journal.images_done, journal.state
        self._truncate_buckets()

    def _read_journal(self) -> _Journal | None:
        path = self.folder / _JOURNAL
        if not path.exists():
            return None
        try:
            journal = msgspec.json.decode(path.read_bytes(), type=_Journal)
        except msgspec.DecodeError:  # of another version: as good as other settings
            journal = None
        facts_bytes = FACTS_DTYPE.itemsize
        if journal and (journal.plan, journal.facts_bytes) == (self.plan, facts_bytes):
            return journal
        if not self.overwrite:
            raise OutputExistsError(
                f"{self.folder}: holds unfinished packing of other settings or sources; "
                "remove it, or give --overwrite to start anew"
            )
        for name in ("buckets", PARTS_FOLDER, SHARDS_FOLDER):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "buckets").mkdir()
        path.unlink()
        return None

    def _write_journal(self) -> None:
        journal = _Journal(self.plan, FACTS_DTYPE.itemsize, self.images_done, self.state)
        write_bytes_atomic(self.folder / _JOURNAL, msgspec.json.encode(journal))

    def _remove_temporaries(self) -> None:
        """Remove what atomic writes left behind when they were killed."""
        for pattern in (".*", f"{SHARDS_FOLDER}/.*", f"{PARTS_FOLDER}/*/.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)  # a process of another machine may be faster

    def _truncate_buckets(self) -> None:
        """Cut every bucket to the images that the journal knows."""
        self._truncate(self._facts_path, self.images_done * FACTS_DTYPE.itemsize)
        shards = len(self.plan.shard_rows)
        counts = np.bincount(self.shard[: self.images_done], minlength=shards)
        for shard, count in enumerate(counts.tolist()):
            bucket = self._bucket(shard)
            if bucket.exists() or not is_sealed(self.folder, self.plan, shard):
                self._truncate(bucket, count * self.plan.record_bytes)

    def _truncate(self, path: Path, size_bytes: int) -> None:
        found = path.stat().st_size if path.exists() else 0
        if found < size_bytes:
            raise CorruptDataError(
                f"{path}: holds {found} bytes, its journal says {size_bytes}; "
                f"remove {self.folder} and pack again"
            )
        if found > size_bytes:
            os.truncate(path, size_bytes)


def _clean(store: Path) -> None:
    """Remove from a finished store what packing needed; the journal and the lock go last."""
    for name in ("buckets", PARTS_FOLDER, _JOURNAL, "lock"):
        _remove(store / name)


def _finish_cleaning(store: Path) -> None:
    """Remove what a kill between the rename and the end of `_clean` left in a finished store."""
    lock = store / "lock"
    if not ((store / MANIFEST_NAME).is_file() and lock.is_file()):
        return
    with lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its writer is about to do so
            return
        _clean(store)


def _append(path: Path, array: np.ndarray) -> None:
    with path.open("ab") as file:
        file.write(np.ascontiguousarray(array).view(np.uint8).data)


def _remove(path: Path) -> None:
    """Remove a file, link or folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
