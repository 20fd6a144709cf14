"""Threads over blocks of images, in order and bounded, with progress.

Owns: how many blocks are under way. Does not own: what a block is.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from tqdm import tqdm

from frazil.store.budget import resident_bytes, size_text

A = TypeVar("A")
B = TypeVar("B")


def ordered_map(work: Callable[[A], B], items: Iterable[A], threads: int) -> Iterator[B]:
    """Yield work(item) in the order of the items, with at most threads + 1 under way."""
    # Each thread has its own count of torch's threads; with others, transforms round differently.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def progress(items: Iterable[A], what: str, unit: str, total: int | None = None) -> Iterable[A]:
    """Return the items with a progress bar on stderr: rate and time left."""
    bar: Iterable[A] = tqdm(items, desc=what, unit=unit, total=total, file=sys.stderr)
    return bar


@contextmanager
def image_bar(
    total: int, what: str, image_bytes: int, initial: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show images done, rate and time left, bytes read and memory held; yields the step.

    Parameters
    ----------
    image_bytes : bytes that are read for one image.
    initial : images that an earlier run did.
    """
    with tqdm(total=total, initial=initial, unit="img", desc=what, file=sys.stderr) as bar:

        def advance(images: int) -> None:
            read = size_text((bar.n + images - initial) * image_bytes)
            held = size_text(resident_bytes())
            bar.set_postfix_str(f"{read} read, RSS {held}", refresh=False)
            bar.update(images)

        yield advance


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Inside, torch's own loops use one core, so that each of our threads has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
