"""A stack changed image by image into another: phases flipped, or particles moved.

Owns: the streaming pass (bounded memory, threads, progress, plan, one atomic output) and what goes
into each of the two. Does not own: the filters (`frazil.geometry.filters`), files (`frazil.io`).
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.geometry.filters import phase_flip, translate
from frazil.io.images import ImageSource, open_images, open_particles
from frazil.io.mrc import StackWriter
from frazil.io.outputs import check_output
from frazil.io.parse import scale_warning
from frazil.io.particles import ParticleTable
from frazil.io.pickle_rows import read_shifts
from frazil.io.pickles import read_ctf
from frazil.io.tool_settings import PhaseFlipSettings, TranslateSettings
from frazil.preprocess.downsample import BLOCK_BYTES, shared_pixel_size
from frazil.preprocess.parallel import image_bar, one_torch_thread, ordered_map
from frazil.preprocess.steps import SUB_BATCH
from frazil.store.budget import DiskNeed, size_text

_THREADS = min(16, os.cpu_count() or 1)
Images = NDArray[np.float32]
Change = Callable[[torch.Tensor, NDArray[np.int64]], torch.Tensor]
Say = Callable[[str], None]


def phase_flip_stack(settings: PhaseFlipSettings, say: Say = print) -> list[str]:
    """Write particles with their phases flipped; return lines that say what was written.

    Each image is transformed by itself, over its own two axes, with its own CTF.

    Raises
    ------
    InputError : CTF of other particles, Fourier images, or an output that is an input.
    """
    source, out = Path(settings.particles), Path(settings.out)
    table = open_particles(source, settings.places(), poses=False)
    header_ang = table.rows["pixel_size_ang"]
    table = table.with_ctf(read_ctf(Path(settings.ctf), len(table)))
    lines = scale_warning(table, header_ang, settings.ctf)
    parameters = torch.from_numpy(table.ctf_array())

    def change(images: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return phase_flip(images, parameters[rows])

    check_output(out, (".mrcs", ".mrc"), [source, settings.ctf, *table.sources])
    return lines + _write_changed(table, out, change, "flipping phases", say)


def translate_stack(settings: TranslateSettings, say: Say = print) -> list[str]:
    """Write particles moved by their shifts; return lines that say what was written.

    Raises
    ------
    InputError : shifts of other particles, Fourier images, or an output that is an input.
    """
    source, out = Path(settings.particles), Path(settings.out)
    table = open_particles(source, settings.places(), poses=False)
    shift = torch.from_numpy(read_shifts(Path(settings.shifts), len(table), settings.scale))

    def change(images: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        return translate(images, shift[rows] * images.shape[-1])

    check_output(out, (".mrcs", ".mrc"), [source, settings.shifts, *table.sources])
    return _write_changed(table, out, change, "translating", say)


def _write_changed(
    table: ParticleTable, out: Path, change: Change, what: str, say: Say
) -> list[str]:
    """Write every image of a table, changed, as one stack; return what to say of it."""
    with open_images(table) as images:
        if images.domain == "hartley":
            raise InputError(f"{table.origin}: holds Fourier images; give the real-space stacks")
        block = min(len(table), max(1, BLOCK_BYTES // (4 * images.box_px**2)))
        _plan(images, out, block, say)
        pixel_size_ang = shared_pixel_size(table, np.arange(len(table)))
        bad = _stream(images, out, change, (block, what, pixel_size_ang))
    scale = f"{pixel_size_ang:.6g} A/px" if pixel_size_ang else "no pixel size in the header"
    lines = [f"{out}: {len(table)} images of {images.box_px} px, {scale}"]
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        lines.append(f"warning: {len(bad)} images have non-finite pixels: rows {shown} (0-based)")
    return lines


def _plan(images: ImageSource, out: Path, block: int, say: Say) -> None:
    """Say what is read, held and written; refuse what does not fit the disk."""
    image_bytes = 4 * images.box_px**2
    held = 3 * (_THREADS + 1) * block * image_bytes
    read = size_text(images.bytes_of(np.arange(images.count)))
    say(
        f"plan: read {read} ({images.count} images of {images.box_px} px) on {_THREADS} "
        f"threads, {size_text(held)} of buffers"
    )
    disk = DiskNeed(images.count * image_bytes, f"{images.count} images", out.parent)
    say(disk.line())
    disk.check()


def _stream(
    images: ImageSource, out: Path, change: Change, how: tuple[int, str, float]
) -> list[int]:
    """Write the changed images in blocks; return the rows with pixels that are not finite."""
    block, what, pixel_size_ang = how
    count, side = images.count, images.box_px
    bad: list[int] = []

    def work(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Images]:
        return rows, _changed(images.read(rows), rows, change)

    parts = (np.arange(start, min(start + block, count)) for start in range(0, count, block))
    with (
        one_torch_thread(),
        image_bar(count, what, images.bytes_of([0])) as advance,
        StackWriter(out, (side, side), count, pixel_size_ang) as writer,
    ):
        for rows, changed in ordered_map(work, parts, _THREADS):
            writer.write(changed)
            bad += rows[~np.isfinite(changed.sum(axis=(1, 2)))].tolist()
            advance(len(rows))
    return bad


def _changed(images: Images, rows: NDArray[np.int64], change: Change) -> Images:
    """Return changed images, a few at a time, so that they stay in a core's cache."""
    for start in range(0, len(images), SUB_BATCH):
        few = slice(start, start + SUB_BATCH)
        images[few] = change(torch.from_numpy(images[few]), rows[few]).numpy()
    return images
