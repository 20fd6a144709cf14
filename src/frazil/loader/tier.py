"""A copy of a store's blocks on fast local disk, made as they are first read.

Owns: the folder DIR/NAME-DIGEST.tier, what is written there and what may be deleted there. Does
not own: the order of reading (`prefetch`), what is kept in memory (`cache`), checksums
(`frazil.store.reader`).

The folder holds tier.json and sparse files with the names, headers and offsets of the store's
shards. A block read from there is checked like one of the store; a hole or a damaged block is read
from the store instead and written again. So a kill at any moment does no harm, nothing is synced,
and several processes may share the folder: they write the same bytes.
"""

import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from torch import Tensor

from frazil.errors import InputError, MissingFileError
from frazil.io.atomic import write_bytes_atomic
from frazil.io.direct import drop_pages
from frazil.store.budget import size_text
from frazil.store.checksums import file_checksum
from frazil.store.codec import NUMPY_TYPES
from frazil.store.manifest import MANIFEST_NAME
from frazil.store.reader import ParticleStore
from frazil.store.writer import shard_path

# What copying leaves free for others: the larger of a share of the disk and a number of bytes.
FREE_SHARE = 0.05
FREE_BYTES = 1 << 30
# A page leaves the page cache only after it was written, so it is dropped so many writes later.
_DROP_LAG = 64
_TIER_NAME = "tier.json"
_SHARD_NAME = re.compile(r"shards/\d+\.b\d+\.npy")


class _TierRecord(msgspec.Struct, frozen=True):
    """tier.json: whose copy this is, and the only files of the folder that are ours."""

    store: str
    digest: str
    files: list[str]
    format: Literal[1] = 1


class Tier:
    """A store that is read from a local copy where there is one.

    Attributes
    ----------
    store : what is copied, and read where the copy has a gap.
    folder : DIR/NAME-DIGEST.tier.
    copying : whether what is read from the store is still written into the folder.
    """

    def __init__(self, store: ParticleStore, cache: Path, say: Callable[[str], None]) -> None:
        """Begin, or go on with, the copy of a store in the folder `cache`, which is made.

        Copies of the same store as it was before it was packed anew are deleted.

        Raises
        ------
        InputError : the folder cannot be used.
        """
        self.store, self._say = store, say
        digest = file_checksum(store.path / MANIFEST_NAME)
        self.folder = cache / f"{store.path.resolve().name}-{digest}.tier"
        manifest = store.manifest
        names = [
            str(shard_path(Path(), shard, band))
            for shard in range(len(manifest.shard_rows))
            for band in range(len(manifest.bands))
        ]
        record = _TierRecord(str(store.path.resolve()), digest, names)
        try:
            _begin(self.folder, record)
            _delete_older(cache, record, say)
        except OSError as error:
            raise InputError(
                f"{cache}: cannot be used ({error.strerror or error}); give another --cache"
            ) from error
        self._local = replace(store, path=self.folder, _shard_files={})
        self.copying = True
        self._lock = threading.Lock()
        self._written: deque[tuple[Path, int, int]] = deque()
        self._from_tier = self._from_store = self._copied = 0

    def say_plan(self, bands: int) -> None:
        """Say how much of the leading bands is there, and what the disk has room for."""
        manifest = self.store.manifest
        width = 2 * manifest.bands[bands - 1].stop * np.dtype(NUMPY_TYPES[manifest.precision])
        needed = manifest.images * width.itemsize
        shards = range(len(manifest.shard_rows))
        paths = [shard_path(self.folder, shard, band) for shard in shards for band in range(bands)]
        there = min(needed, sum(path.stat().st_blocks * 512 for path in paths if path.is_file()))
        room = max(0, self._room())
        fits = "all fits" if needed - there <= room else f"{size_text(room)} more fit"
        self._say(
            f"{self.folder}: holds {size_text(there)} of {size_text(needed)}, {fits}; "
            "the rest is copied as it is first read"
        )

    def say_pass(self) -> None:
        """Say what came from where since the last time; nothing when nothing was read."""
        with self._lock:
            counts = self._from_tier, self._from_store, self._copied
            self._from_tier = self._from_store = self._copied = 0
        if any(counts):
            here, store, copied = map(size_text, counts)
            self._say(f"{self.folder}: {here} read here, {store} from the store, {copied} copied")

    @property
    def made_as_read(self) -> bool:
        """False: records lie in files, here or in the store."""
        return False

    def band_tensors(self, count: int, bands: int) -> list[Tensor]:
        """Return empty code buffers; see `ParticleStore.band_tensors`."""
        return self.store.band_tensors(count, bands)

    def read_blocks(
        self, shard: int, first: int, stop: int, out: Sequence[Tensor], keep_pages: bool = True
    ) -> None:
        """Fill buffers with blocks of a shard; see `ParticleStore.read_blocks`.

        Raises
        ------
        MissingFileError, CorruptDataError : of the store. The copy raises none: it is mended.
        """
        size = sum(buffer.nbytes for buffer in out)
        try:
            self._check_written(shard, first, stop, len(out) - 1)
            self._local.read_blocks(shard, first, stop, out, keep_pages)
        except OSError:  # a gap, damage, or a disk that fails: the store has it all
            self.store.read_blocks(shard, first, stop, out, keep_pages and not self.copying)
            copied = size if self._copy(shard, first, out, keep_pages) else 0
            with self._lock:
                self._from_store += size
                self._copied += copied
        else:
            with self._lock:
                self._from_tier += size

    def _check_written(self, shard: int, first: int, stop: int, band: int) -> None:
        """Raise MissingFileError where a file has a hole, which would be read as zeros in vain."""
        file = self._local.shard_file(shard, band)
        start = file.data_offset + first * self.store.manifest.block_rows * file.row_bytes
        rows = self.store.block_range_rows(shard, first, stop)
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            if os.lseek(descriptor, start, os.SEEK_HOLE) < start + rows * file.row_bytes:
                raise MissingFileError(f"{file.path}: blocks {first} to {stop} are not there yet")
        finally:
            os.close(descriptor)

    def _copy(self, shard: int, first: int, out: Sequence[Tensor], keep_pages: bool) -> bool:
        """Write blocks into the folder; return whether they are there."""
        if not self.copying:
            return False
        needed = sum(buffer.nbytes for buffer in out)
        try:
            if self._room() < needed:
                self._stop("the disk has no more room")
                return False
            for band, buffer in enumerate(out):
                row = first * self.store.manifest.block_rows
                self._write(shard, band, row, buffer.numpy(), keep_pages)
        except OSError as error:
            self._stop(error.strerror or str(error))
            return False
        self._drop_behind()
        return True

    def _write(
        self, shard: int, band: int, first_row: int, codes: np.ndarray, keep_pages: bool
    ) -> None:
        """Write rows of one band, beginning the file with the store's header if it is new."""
        source, path = self.store.shard_file(shard, band), shard_path(self.folder, shard, band)
        start = source.data_offset + first_row * source.row_bytes
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            size = source.data_offset + self.store.manifest.shard_rows[shard] * source.row_bytes
            if os.fstat(descriptor).st_size != size or not self._has_header(shard, band):
                with source.path.open("rb") as file:
                    header = file.read(source.data_offset)
                _write_at(descriptor, memoryview(header), 0)
                os.ftruncate(descriptor, size)
            _write_at(descriptor, codes.reshape(-1).view(np.uint8).data, start)
            if not keep_pages:
                drop_pages(descriptor, start, start + codes.nbytes)  # begins to write them
                with self._lock:
                    self._written.append((path, start, start + codes.nbytes))
        finally:
            os.close(descriptor)

    def _has_header(self, shard: int, band: int) -> bool:
        try:
            self._local.shard_file(shard, band)
        except OSError:
            return False
        return True

    def _drop_behind(self) -> None:
        """Drop what was written some time ago from the page cache."""
        with self._lock:
            ready = [self._written.popleft() for _ in range(len(self._written) - _DROP_LAG)]
        for path, start, stop in ready:
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    drop_pages(descriptor, start, stop)
                finally:
                    os.close(descriptor)

    def _room(self) -> int:
        """Return the bytes that may still be written."""
        usage = shutil.disk_usage(self.folder)
        return usage.free - max(int(FREE_SHARE * usage.total), FREE_BYTES)

    def _stop(self, why: str) -> None:
        with self._lock:
            first, self.copying = self.copying, False
        if first:
            self._say(f"{self.folder}: {why}; what is missing here is read from the store")


def _begin(folder: Path, record: _TierRecord) -> None:
    """Make the folder with its record, unless it is there.

    Raises
    ------
    InputError : a folder of this name holds something else.
    """
    found = _read_record(folder)
    if found is not None and found.digest == record.digest:
        (folder / "shards").mkdir(exist_ok=True)
        return
    temporary = f".{_TIER_NAME}."  # of a process that begins now, or was killed when it did
    if folder.is_dir() and not all(path.name.startswith(temporary) for path in folder.iterdir()):
        raise InputError(
            f"{folder}: is there, but its {_TIER_NAME} does not say what it holds; "
            "move it away, or give another --cache"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(folder / _TIER_NAME, msgspec.json.encode(record))
    (folder / "shards").mkdir(exist_ok=True)


def _read_record(folder: Path) -> _TierRecord | None:
    """Return what tier.json says, None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / _TIER_NAME).read_bytes(), type=_TierRecord)
    except (OSError, msgspec.DecodeError):
        return None


def _delete_older(cache: Path, record: _TierRecord, say: Callable[[str], None]) -> None:
    """Delete the copies of the same store that are of another digest."""
    for folder in sorted(cache.glob("*.tier")):
        found = None if folder.is_symlink() else _read_record(folder)
        if found is not None and found.store == record.store and found.digest != record.digest:
            kept = _delete(folder, found)
            left = f"; kept, as they are not of frazil: {', '.join(kept)}" if kept else ""
            say(f"{folder}: was the copy of an older {record.store} and is deleted{left}")


def _delete(folder: Path, record: _TierRecord) -> list[str]:
    """Delete the files that a record lists; return the names of what else is there."""
    shards = folder / "shards"
    if not shards.is_symlink():
        for name in filter(_SHARD_NAME.fullmatch, record.files):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            shards.rmdir()
    kept = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != _TIER_NAME
    )
    (folder / _TIER_NAME).unlink()
    with suppress(OSError):
        folder.rmdir()
    return kept


def _write_at(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
