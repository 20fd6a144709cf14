"""What must not come of reading a damaged file, and how it is seen.

Owns: the limits of time and memory, and the watch over what is executed or written. Does not own:
the files (`readers`).
"""

import resource
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frazil.errors import FrazilError

CPU_S = 20.0
BASE_BYTES = 48 << 20
BYTES_PER_BYTE = 64
_SPACE_BYTES = 3 << 30
# What a reader has no business with, by the names of Python's audit events.
_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.startfile", "exec"),
    *("subprocess.Popen", "socket.connect", "os.remove", "os.rename", "os.chmod", "os.mkdir"),
    *("shutil.rmtree", "os.symlink", "ctypes.dlopen", "builtins.input", "os.putenv"),
)


class BrokenPromiseError(AssertionError):
    """A reader did what it must never do."""


class _Watch:
    """The audit hook, which can be added only once and never removed."""

    def __init__(self) -> None:
        self.added = self.active = False
        self.seen: list[str] = []

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Note a forbidden event; run by Python for every audited one."""
        if not self.active:
            return
        writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or event in _FORBIDDEN:
            self.seen.append(f"{event} {str(args)[:200]}")


_watch = _Watch()


def read_guarded(read: Callable[[Path], object], path: Path, size_bytes: int) -> str:
    """Return "read", or the error's name when `read` refused; `size_bytes` is that of its input.

    Raises
    ------
    BrokenPromiseError : anything but a FrazilError of one line was raised, more than CPU_S went by,
        more memory than BASE_BYTES + BYTES_PER_BYTE a byte was allocated, or something was executed
        or written.
    """
    try:
        with warnings.catch_warnings(), _watched(), _limited(), _measured(size_bytes):
            warnings.simplefilter("ignore")
            read(path)
    except FrazilError as error:
        if not _is_line(str(error)):
            raise BrokenPromiseError(f"an error that is no line: {error!r}") from error
        return type(error).__name__
    except BrokenPromiseError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BrokenPromiseError(f"{type(error).__name__}: {str(error)[:300]}") from error
    return "read"


def _is_line(text: str) -> bool:
    """Return whether a message is one line that can be printed anywhere."""
    return len(text.splitlines()) == 1 and text == text.encode("utf-8", "replace").decode()


@contextmanager
def _watched() -> Iterator[None]:
    if not _watch.added:
        sys.addaudithook(_watch.hook)
        _watch.added = True
    _watch.seen.clear()
    _watch.active = True
    try:
        yield
    finally:
        _watch.active = False
        if _watch.seen:
            raise BrokenPromiseError(f"it did: {_watch.seen[:3]}")


@contextmanager
def _limited() -> Iterator[None]:
    """Raise BrokenPromiseError after CPU_S seconds of work, and let a huge allocation fail."""

    def stop(_signal: int, _frame: object) -> None:
        raise BrokenPromiseError(f"it worked for more than {CPU_S} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _SPACE_BYTES, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _measured(size_bytes: int) -> Iterator[None]:
    """Raise BrokenPromiseError when more was allocated than a file of `size_bytes` can need."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        limit = BASE_BYTES + BYTES_PER_BYTE * size_bytes
        if peak > limit:
            raise BrokenPromiseError(f"it took {peak} bytes for a file of {size_bytes}")
