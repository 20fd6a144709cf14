"""What the benchmarks of the loader need of the disk: forgetting pages, and a plain read beside it.

Owns: the page cache of a store's shards and their sequential rate. Does not own: any claim.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BUFFER_BYTES = 8 << 20


def shard_files(store: Path) -> list[Path]:
    """Return the files that hold a store's records."""
    return sorted((store / "shards").iterdir())


def forget_pages(files: list[Path]) -> None:
    """Drop files from the page cache; they are synced first, as dirty pages would stay."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def sequential_rate(files: list[Path], threads: int) -> float:
    """Return bytes/s of buffered sequential reads, so many files at a time."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(_read, files))
    return total / (time.perf_counter() - start)


def _read(path: Path) -> int:
    buffer, total = bytearray(_BUFFER_BYTES), 0
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            total += got
    return total
