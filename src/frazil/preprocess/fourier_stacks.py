"""cryoDRGN's preprocessed stacks: X.0.ft.mrcs, X.1.ft.mrcs, ... and their list X.ft.txt.

Owns: their names, chunks and resumption. Does not own: the transform (`steps`).
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import torch

from frazil.errors import InputError, OutputExistsError
from frazil.io.atomic import write_bytes_atomic, write_text_atomic
from frazil.io.images import ImageSource, open_images
from frazil.io.mrc_writer import StackWriter
from frazil.io.particles import ParticleTable
from frazil.preprocess.inputs import image_fingerprint, one_pixel_size
from frazil.preprocess.parallel import one_torch_thread, ordered_map, progress
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import ImageTransform, hartley_images, plan_transform
from frazil.store.manifest import check_box

BLOCK_BYTES = 16 << 20


def write_fourier_stacks(
    table: ParticleTable, out: Path, settings: PackSettings, chunk: int
) -> Path:
    """Write the Hartley transforms of all particles in row order; return the list X.ft.txt.

    Parameters
    ----------
    table : particles; of the metadata only the pixel size travels (into the headers).
    out : X.mrcs or X.txt; only X counts. Its folder is made when absent.
    chunk : images per stack.

    Raises
    ------
    OutputExistsError : X.ft.txt exists (unless `settings.overwrite`).
    InputError : box odd or too large, or the input is transformed already.

    An interrupted run leaves whole stacks only; the same call goes on after them.
    """
    stem = out.with_suffix("")
    listing = stem.with_name(stem.name + ".ft.txt")
    if listing.exists() and not settings.overwrite:
        raise OutputExistsError(f"{listing}: exists already; give --overwrite to replace it")
    images = open_images(table)
    if images.domain == "hartley":
        raise InputError(f"{table.origin}: holds Fourier images already")
    box_px = settings.box_px or images.box_px
    check_box(box_px, images.box_px, "the images")
    pixel = one_pixel_size(table)
    pixel_size_ang = 0.0 if pixel is None else pixel * images.box_px / box_px
    transform = plan_transform(settings, images.box_px, "real")
    stem.parent.mkdir(parents=True, exist_ok=True)

    journal = stem.with_name(f".{stem.name}.ft.json")
    identity = msgspec.json.encode([image_fingerprint(table, settings), chunk])
    if not (journal.exists() and journal.read_bytes() == identity):
        for old in stem.parent.glob(f"{stem.name}.*.ft.mrcs"):
            if settings.overwrite or journal.exists():
                old.unlink()
            else:
                raise OutputExistsError(f"{old}: exists already; give --overwrite to replace it")
        write_bytes_atomic(journal, identity)
    names = []
    for start in range(0, len(table), chunk):
        path = stem.with_name(f"{stem.name}.{start // chunk}.ft.mrcs")
        names.append(path.name)
        rows = np.arange(start, min(start + chunk, len(table)))
        if not path.exists():
            _write_stack(path, images, transform, rows, (pixel_size_ang, settings.max_threads))
    write_text_atomic(listing, "\n".join(names) + "\n")
    journal.unlink()
    return listing


def _write_stack(
    path: Path,
    images: ImageSource,
    transform: ImageTransform,
    rows: np.ndarray,
    how: tuple[float, int],
) -> None:
    pixel_size_ang, threads = how
    side = transform.box_px + 1
    block = max(1, BLOCK_BYTES // (4 * images.box_px**2))
    parts = np.split(rows, range(block, len(rows), block))

    def work(part: np.ndarray) -> np.ndarray:
        return hartley_images(torch.from_numpy(images.read(part)), transform).numpy()

    def blocks() -> Iterator[np.ndarray]:
        yield from progress(ordered_map(work, parts, threads), path.name, "block", len(parts))

    with (
        one_torch_thread(),
        StackWriter(path, (side, side), len(rows), pixel_size_ang) as writer,
    ):
        for transformed in blocks():
            writer.write(transformed)
