"""Packing by a thread while the first epoch is trained from the source.

Owns: the thread, its errors, and waiting for it. Does not own: packing (`frazil.preprocess`) and
what is trained from where (`state`).
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, final

from tqdm import tqdm

from frazil.errors import StoppedError
from frazil.preprocess.lazy import LazyStore
from frazil.preprocess.monitor import SilentMonitor
from frazil.preprocess.pipeline import open_or_pack
from frazil.store.reader import ParticleStore

_POLL_S = 0.2
# Training comes first where both want the same cores.
_NICENESS = 10


@final
class PackingMeanwhile:
    """A store in the making; a context manager that begins it, and stops it at the end.

    What a stopped packing has done is kept; the next one of the same input goes on with it.

    Attributes
    ----------
    target : NAME.frz.
    """

    def __init__(self, source: LazyStore, target: Path, command: str = "") -> None:
        self.target = target
        self._source, self._command = source, command
        self._stop, self._ended = threading.Event(), threading.Event()
        self._monitor = SilentMonitor(source.scale.reference, self._stop.is_set)
        self._thread = threading.Thread(target=self._pack, name="packing")
        self._store: ParticleStore | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> bool:
        """Whether packing ended with an error, which `check` raises."""
        return self._error is not None

    def check(self) -> None:
        """Raise the error that packing ended with, if it did."""
        if self._error is not None:
            raise self._error

    def store(self, stopped: Callable[[], bool]) -> ParticleStore:
        """Return the finished store, with the rows of the source; waits with a bar on stderr.

        Raises
        ------
        KeyboardInterrupt : `stopped` while waiting.
        FrazilError, OSError : packing failed.
        """
        if not self._ended.is_set():
            self._wait(stopped)
        self.check()
        if self._store is None:
            raise StoppedError(f"{self.target}: packing was stopped; give the same command again")
        return self._store

    def _wait(self, stopped: Callable[[], bool]) -> None:
        interval_s = 0.5 if sys.stderr.isatty() else 30.0
        monitor = self._monitor
        with tqdm(file=sys.stderr, mininterval=interval_s, miniters=0) as bar:
            while not self._ended.wait(_POLL_S):
                if stopped():
                    raise KeyboardInterrupt
                bar.desc, bar.total = f"{monitor.stage}: ", monitor.total
                bar.update(monitor.done - bar.n)

    def _pack(self) -> None:
        if sys.platform == "linux":  # where each thread has its own, which its threads inherit
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        prepared = self._source.prepared
        try:
            self._store = open_or_pack(
                prepared.table, self.target, prepared.settings, self._command, self._monitor
            )
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the run can end
            self._error = error
        else:
            tqdm.write(f"{self.target}: packed; later epochs are read from there", file=sys.stdout)
        finally:
            self._ended.set()
