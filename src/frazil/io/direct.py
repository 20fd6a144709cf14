"""Reading past the page cache: a pass over files larger than memory leaves nothing behind.

Owns: aligned requests into a buffer per thread, and whether the page cache is the shorter way. Does
not own: what is read (`mrc`, `frazil.store.reader`).

The buffer lies in huge pages. In ordinary ones a request is cut into hundreds of pieces of 4 kB,
which costs half of a fast disk's rate (benchmarks/results/2026-11-24-large-store.md).
"""

import fcntl
import mmap
import os
import random
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

PIECE_BYTES = 4 << 20
_HUGE_PAGE_BYTES = 2 << 20
# Sectors have 512 or 4096 bytes; file systems may want whole pages too.
_ALIGNMENT_BYTES = max(4096, mmap.PAGESIZE)
_PROBES = 3
_of_thread = threading.local()


def read_past_cache(path: Path, out: np.ndarray, position: int) -> int:
    """Fill (n,) uint8 with the bytes of a file from a position; return how many there were.

    Where the file system has no such reads, the pages are dropped from the page cache afterwards.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        bypass_cache(descriptor)
        got = read_at(descriptor, out, position)
        if not is_direct(descriptor):
            drop_pages(descriptor, position, position + got)
        return got
    finally:
        os.close(descriptor)


def read_through_cache(path: Path, out: np.ndarray, position: int) -> int:
    """Fill (n,) uint8 with the bytes of a file from a position; return how many there were."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_at(descriptor, out, position)
    finally:
        os.close(descriptor)


def read_at(descriptor: int, out: np.ndarray, position: int) -> int:
    """Fill (n,) uint8 from an open file, whatever the size of single reads; return the bytes got.

    Past the page cache after `bypass_cache`, if the file system still agrees.
    """
    if is_direct(descriptor):
        try:
            return _read_aligned(descriptor, out, position)
        except OSError:  # EINVAL: not on this file system. A broken disk fails below once more.
            fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
            advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")  # nobody would drop what is read ahead
    done = 0
    while done < len(out) and (got := os.preadv(descriptor, [out[done:].data], position + done)):
        done += got
    return done


def bypass_cache(descriptor: int) -> None:
    """Let an open file be read past the page cache, where that can be."""
    if hasattr(os, "O_DIRECT"):
        with suppress(OSError):  # EINVAL: not on this file system
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)


def is_direct(descriptor: int) -> bool:
    """Return whether an open file is read past the page cache."""
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


def is_cached(path: Path) -> bool:
    """Return whether a file is in the page cache, as far as a few random places of it tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")  # else asking reads what lies behind
        size, byte = os.fstat(descriptor).st_size, bytearray(1)
        for _ in range(_PROBES):
            if not os.preadv(descriptor, [byte], random.randrange(max(1, size)), os.RWF_NOWAIT):
                return False
    except OSError:  # EAGAIN: it would have to be read; EOPNOTSUPP: not to be known
        return False
    finally:
        os.close(descriptor)
    return True


def drop_pages(descriptor: int, start: int, stop: int) -> None:
    """Drop bytes [start, stop) of a file from the page cache, with the pages at both ends."""
    start -= start % _ALIGNMENT_BYTES
    stop += -stop % _ALIGNMENT_BYTES
    advise(descriptor, start, stop - start, "POSIX_FADV_DONTNEED")


def advise(descriptor: int, start: int, length: int, advice: str) -> None:
    """Tell the system what becomes of bytes of a file, where it listens; length 0 is to the end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, getattr(os, advice))


def _read_aligned(descriptor: int, out: np.ndarray, position: int) -> int:
    """Read whole sectors into this thread's buffer, and copy what is wanted of them.

    Raises
    ------
    OSError : the file system takes no such reads after all.
    """
    buffer, done = _buffer(), 0
    while done < len(out):
        lead = (position + done) % _ALIGNMENT_BYTES
        size = min(PIECE_BYTES, lead + len(out) - done + -(position + len(out)) % _ALIGNMENT_BYTES)
        got = os.preadv(descriptor, [buffer[:size].data], position + done - lead) - lead
        if got <= 0:
            break
        wanted = min(got, len(out) - done)
        np.copyto(out[done : done + wanted], buffer[lead : lead + wanted])
        done += wanted
    return done


def _buffer() -> np.ndarray:
    """Return this thread's (PIECE_BYTES,) uint8, at the begin of a huge page."""
    kept: np.ndarray | None = getattr(_of_thread, "buffer", None)
    if kept is None:
        memory = mmap.mmap(-1, PIECE_BYTES + _HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(memory, np.uint8)
        start = -whole.ctypes.data % _HUGE_PAGE_BYTES
        kept = _of_thread.buffer = whole[start : start + PIECE_BYTES]
    return kept
