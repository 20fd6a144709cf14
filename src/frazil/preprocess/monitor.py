"""Who watches a packing: progress bars on stderr, or the program that it runs beside.

Owns: where progress goes, and the way to stop a packing from outside. Does not own: packing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar, final

import numpy as np

from frazil.errors import StoppedError
from frazil.preprocess.parallel import image_bar, progress

A = TypeVar("A")


class PackMonitor(Protocol):
    """What a packing tells, and asks, while it goes on."""

    @property
    def reference(self) -> np.ndarray | None:
        """(D/2,) of the pre-sample, see `PreparedImages.reference`, where it is known already."""

    def images(
        self, total: int, what: str, image_bytes: int, initial: int
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Return what yields the step that is to be called with the images of each block.

        Raises
        ------
        StoppedError : from the step.
        """

    def items(self, items: Iterable[A], what: str, unit: str) -> Iterable[A]:
        """Return the items, watched; raises StoppedError between two of them."""


@final
class BarMonitor:
    """Bars on stderr, and nobody who stops."""

    reference: np.ndarray | None = None

    def images(
        self, total: int, what: str, image_bytes: int, initial: int
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Return a bar; see `PackMonitor`."""
        return image_bar(total, what, image_bytes, initial)

    def items(self, items: Iterable[A], what: str, unit: str) -> Iterable[A]:
        """Return the items with a bar; see `PackMonitor`."""
        return progress(items, what, unit)


@final
@dataclass(eq=False)
class SilentMonitor:
    """No bars: a thread packs beside other work, which may stop it and look how far it is.

    Attributes
    ----------
    reference : see `PackMonitor`.
    stopped : packing ends with StoppedError after the block under way.
    stage, done, total : what is under way, and how much of it is done.
    """

    reference: np.ndarray | None
    stopped: Callable[[], bool]
    stage: str = "packing"
    done: int = 0
    total: int = 0

    @contextmanager
    def _images(self, total: int, what: str, initial: int) -> Iterator[Callable[[int], None]]:
        self.stage, self.done, self.total = what, initial, total

        def advance(images: int) -> None:
            self.done += images
            self._check()

        yield advance

    def images(
        self, total: int, what: str, image_bytes: int, initial: int
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Return what yields the step; see `PackMonitor`."""
        return self._images(total, what, initial)

    def items(self, items: Iterable[A], what: str, unit: str) -> Iterator[A]:
        """Yield the items; see `PackMonitor`."""
        known = list(items)
        self.stage, self.done, self.total = what, 0, len(known)
        for item in known:
            self._check()
            yield item
            self.done += 1

    def _check(self) -> None:
        if self.stopped():
            raise StoppedError("packing was stopped; the same command goes on with it")
