"""cryoDRGN's preprocessed stacks: X.0.ft.mrcs, X.1.ft.mrcs, ... and their list X.ft.txt.

Owns: their names, chunks and resumption. Does not own: the transform (`steps`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
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
    table: ParticleTable,
    out: Path,
    settings: PackSettings,
    chunk: int,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the Hartley transforms of all particles in row order; return the list X.ft.txt.

    Parameters
    ----------
    table : particles; of the metadata only the pixel size travels (into the headers).
    out : X.mrcs or X.txt; only X counts. Its folder is made when absent.
    chunk : images per stack.
    say : takes the line about images with non-finite pixels, which are written as zeros.

    Raises
    ------
    OutputExistsError : X.ft.txt exists (unless `settings.overwrite`).
    InputError : box odd or too large, the input is transformed already, or an image has
        non-finite pixels under `settings.strict`.

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
    continued = journal.exists() and journal.read_bytes() == identity
    for old in _leftovers(stem, everything=not continued):
        if not (settings.overwrite or old.name.startswith(".")):
            raise OutputExistsError(
                f"{old}: exists already (other settings, or not finished); "
                "give --overwrite to replace it"
            )
        old.unlink()
    write_bytes_atomic(journal, identity)
    listing.unlink(missing_ok=True)
    job = _Job(images, transform, settings, pixel_size_ang)
    names = []
    for start in range(0, len(table), chunk):
        path = stem.with_name(f"{stem.name}.{start // chunk}.ft.mrcs")
        names.append(path.name)
        if not path.exists():
            job.write_stack(path, np.arange(start, min(start + chunk, len(table))))
    write_text_atomic(listing, "\n".join(names) + "\n")
    journal.unlink()
    if job.zeroed:
        shown = ", ".join(map(str, job.zeroed[:5])) + (", ..." if len(job.zeroed) > 5 else "")
        say(f"{len(job.zeroed)} images with non-finite pixels are zero: rows {shown} (0-based)")
    return listing


def _leftovers(stem: Path, everything: bool) -> list[Path]:
    """Return the temporary stacks of X, and with `everything` its finished ones.

    X.1.ft.mrcs belongs to X; X.b.1.ft.mrcs is of a set called X.b.
    """
    name = rf"{re.escape(stem.name)}\.\d+\.ft\.mrcs"
    killed = re.compile(rf"\.{name}\.[0-9a-f]+\.mrcs")
    whole = re.compile(name)
    return sorted(
        path
        for path in stem.parent.iterdir()
        if killed.fullmatch(path.name) or (everything and whole.fullmatch(path.name))
    )


@dataclass
class _Job:
    """What all stacks of one call share; `zeroed` are the rows written as zeros."""

    images: ImageSource
    transform: ImageTransform
    settings: PackSettings
    pixel_size_ang: float
    zeroed: list[int] = field(default_factory=list)

    def write_stack(self, path: Path, rows: np.ndarray) -> None:
        """Transform the images of some rows into one stack."""
        side = self.transform.box_px + 1
        block = max(1, BLOCK_BYTES // (4 * self.images.box_px**2))
        parts = np.split(rows, range(block, len(rows), block))
        with (
            one_torch_thread(),
            StackWriter(path, (side, side), len(rows), self.pixel_size_ang) as writer,
        ):
            done = ordered_map(self._transformed, parts, self.settings.max_threads)
            for transformed, bad in progress(done, path.name, "block", len(parts)):
                self.zeroed += bad
                writer.write(transformed)

    def _transformed(self, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
        images = torch.from_numpy(self.images.read(rows))
        transformed = hartley_images(images, self.transform)
        bad = ~transformed.flatten(1).isfinite().all(dim=1)
        bad_rows = rows[bad.numpy()].tolist()
        if bad_rows and self.settings.strict:
            raise InputError(
                f"{self.images.origin}: row {bad_rows[0]} (0-based) has non-finite pixels; "
                "leave --strict out to write zeros for it and go on"
            )
        transformed[bad] = 0
        return transformed.numpy(), bad_rows
