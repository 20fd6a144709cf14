"""`frazil downsample`: smaller stacks and volumes by Fourier cropping.

Owns: which stacks are written, their names, and how an interrupted run goes on. Does not own: the
crop (`steps`), the STAR text (`star_output`), reading and writing of stacks (`frazil.io`).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError, OutputExistsError
from frazil.io.atomic import write_bytes_atomic, write_text_atomic
from frazil.io.identities import Identities
from frazil.io.images import ImageSource, open_images, open_particles
from frazil.io.mrc import StackWriter, read_header, read_volume, write_volume
from frazil.io.particles import ParticleTable
from frazil.io.selection_file import read_rows
from frazil.preprocess.downsample_settings import DownsampleSettings
from frazil.preprocess.inputs import image_fingerprint, used_sources
from frazil.preprocess.parallel import image_bar, one_torch_thread, ordered_map
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.star_output import plan_star, write_scaled_star
from frazil.preprocess.steps import SUB_BATCH, downsample_images, downsample_volume
from frazil.store.budget import DiskNeed, allowance, size_text
from frazil.store.manifest import check_box

BLOCK_BYTES = 16 << 20
DEFAULT_CHUNK = 100_000
_SAME_SCALE = 1e-3
Rows = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StackPlan:
    """The stacks to write: (path, table rows of its images); `listing` names them, made last."""

    stacks: list[tuple[Path, Rows]]
    listing: Path | None

    @property
    def final(self) -> Path:
        """The file whose presence says that all is done."""
        return self.listing or self.stacks[0][0]

    @property
    def journal(self) -> Path:
        """The file that says what an unfinished run was doing."""
        return self.final.with_name(f".{self.final.name}.downsample.json")


def downsample(settings: DownsampleSettings, say: Say = print) -> list[str]:
    """Write what the settings ask for; return lines that say what was written.

    What it will take is said first, a line at a time.

    Grey values grow so that sums over pixels (voxels) stay. Every file appears whole or not at
    all; of an interrupted run with several stacks (chunks, or a .star) the whole ones are kept,
    and the same call goes on after them.

    Raises
    ------
    InputError : box odd or larger than the input's, a bad selection, names that do not fit.
    OutputExistsError : the output exists, unless `settings.overwrite`.
    MissingFileError, CorruptDataError : a stack is not there, or cut short.
    BudgetError : the disk is too small.
    """
    out, source = Path(settings.out), Path(settings.input)
    _check_names(settings, out)
    if settings.is_volume:
        return [_downsample_volume(source, out, settings)]
    table = open_particles(source, settings.places(), poses=False)
    rows = _selection(settings, table)
    table = used_sources(table.take(rows))
    with open_images(table) as images:
        if images.domain == "hartley":
            raise InputError(f"{source}: holds Fourier images; give the real-space stacks")
        check_box(settings.box_px, images.box_px, "the images")
        if out.suffix == ".star":
            folder = _path(settings.outdir) or out.parent
            star = plan_star(source, table, rows, out, folder)
            plan = StackPlan(star.stacks, out)
            _check_not_input(plan, source, table)
            _plan_line(plan, images, settings, say)
            lines = write_stacks(plan, images, table, settings)
            lines += write_scaled_star(source, out, star, images.box_px, settings.box_px)
            plan.journal.unlink(missing_ok=True)
            return lines
        plan = _plan_stacks(out, len(table), settings.chunk)
        _check_not_input(plan, source, table)
        _plan_line(plan, images, settings, say)
        lines = write_stacks(plan, images, table, settings)
    if plan.listing:
        write_text_atomic(plan.listing, "".join(f"{path.name}\n" for path, _ in plan.stacks))
        plan.journal.unlink(missing_ok=True)
        lines.append(f"{plan.listing}: names {len(plan.stacks)} stacks")
    return lines


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _check_names(settings: DownsampleSettings, out: Path) -> None:
    """Raise InputError unless output, input and flags fit together."""
    wanted = (".mrc",) if settings.is_volume else (".mrcs", ".mrc", ".txt", ".star")
    if out.suffix not in wanted:
        raise InputError(f"-o {out}: the name must end in {' or '.join(wanted)}")
    if settings.is_volume and settings.ind:
        raise InputError(f"--ind {settings.ind}: a volume (--is-vol) has no particles to select")
    if out.suffix == ".star" and Path(settings.input).suffix != ".star":
        raise InputError(f"-o {out}: a .star output needs a .star input, not {settings.input}")
    if settings.outdir and out.suffix != ".star":
        raise InputError(f"--outdir {settings.outdir}: is for .star output; -o {out} is not one")
    if settings.chunk and (out.suffix == ".star" or settings.is_volume):
        raise InputError(f"--chunk {settings.chunk}: is for .mrcs and .txt output, not -o {out}")


def _selection(settings: DownsampleSettings, table: ParticleTable) -> Rows:
    """Return the rows of the input to keep, in the order they are given."""
    if settings.ind is None:
        return np.arange(len(table))
    return read_rows(
        Path(settings.ind),
        len(table),
        lambda _: Identities.of(table.rows, table.sources),
        table.origin,
    )


def _plan_stacks(out: Path, count: int, chunk: int | None) -> StackPlan:
    """Return one stack, or chunks and their list."""
    if out.suffix != ".txt" and chunk is None:
        return StackPlan([(out, np.arange(count))], None)
    size, stem = chunk or DEFAULT_CHUNK, out.with_suffix("")
    starts = range(0, count, size)
    stacks = [
        (stem.with_name(f"{stem.name}.{number}.mrcs"), np.arange(start, min(start + size, count)))
        for number, start in enumerate(starts)
    ]
    return StackPlan(stacks, stem.with_name(f"{stem.name}.txt"))


def _check_not_input(plan: StackPlan, source: Path, table: ParticleTable) -> None:
    """Raise InputError when a file to write is one that is read."""
    read = {Path(path).resolve() for path in (*table.sources, str(source))}
    for path in (plan.final, *(path for path, _ in plan.stacks)):
        if path.resolve() in read:
            remedy = "--outdir DIR" if plan.final.suffix == ".star" else "another -o"
            raise InputError(f"{path}: would replace a file that is read; give {remedy}")


def _downsample_volume(source: Path, out: Path, settings: DownsampleSettings) -> str:
    """Write one smaller volume; return what to say of it."""
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: would replace the file that is read; give another -o")
    if out.exists() and not settings.overwrite:
        raise OutputExistsError(f"{out}: exists already; give --overwrite to replace it")
    volume, pixel_size_ang = read_volume(source)
    side = volume.shape[0]
    if side % 2:
        raise InputError(f"{source}: its side is {side} px; an even one is wanted, pad it first")
    check_box(settings.box_px, side, "the volume")
    pixel_size_ang *= side / settings.box_px
    out.parent.mkdir(parents=True, exist_ok=True)
    small = downsample_volume(torch.from_numpy(volume), settings.box_px)
    write_volume(out, small.numpy(), pixel_size_ang)
    return f"{out}: volume of {settings.box_px} px, {pixel_size_ang:.6g} A/px ({side} px before)"


def write_stacks(
    plan: StackPlan, images: ImageSource, table: ParticleTable, settings: DownsampleSettings
) -> list[str]:
    """Write the stacks of a plan that are not there yet; return lines that say what was done.

    Raises
    ------
    OutputExistsError : see `downsample`.
    """
    box_px = settings.box_px
    kept = _begin(plan, table, settings)
    todo = [(path, rows) for path, rows in plan.stacks if path not in kept]
    block = _block_images(images, settings)
    factor = images.box_px / box_px
    bad: list[int] = []
    unscaled: list[Path] = []

    def work(part: tuple[int, Rows]) -> tuple[int, Rows, NDArray[np.float32]]:
        number, rows = part
        return number, rows, _small_images(images.read(rows), box_px)

    parts = (
        (number, rows[start : start + block])
        for number, (_, rows) in enumerate(todo)
        for start in range(0, len(rows), block)
    )
    total = sum(len(rows) for _, rows in todo)
    image_bytes = images.bytes_of([0])
    with one_torch_thread(), image_bar(total, "downsampling", image_bytes) as advance:
        done = ordered_map(work, parts, settings.max_threads)
        for number, results in groupby(done, key=lambda result: result[0]):
            path, rows = todo[number]
            pixel_size_ang = shared_pixel_size(table, rows) * factor
            if not pixel_size_ang:
                unscaled.append(path)
            with StackWriter(path, (box_px, box_px), len(rows), pixel_size_ang) as writer:
                for _, part_rows, small in results:
                    writer.write(small)
                    bad += part_rows[~np.isfinite(small.sum(axis=(1, 2)))].tolist()
                    advance(len(part_rows))
    return list(_describe(plan, kept, box_px, (bad, unscaled)))


def _plan_line(
    plan: StackPlan, images: ImageSource, settings: DownsampleSettings, say: Say
) -> None:
    """Say what is read, held and written, and refuse what does not fit the disk.

    Raises
    ------
    OutputExistsError : the output is complete already, unless `settings.overwrite`.
    BudgetError : see `DiskNeed.check`.
    """
    count, box_px = sum(len(rows) for _, rows in plan.stacks), settings.box_px
    _refuse_complete(plan, settings)
    # Of an interrupted run the whole stacks stay; a single stack is written beside the old one.
    there = sum(path.stat().st_size for path, _ in plan.stacks if plan.listing and path.exists())
    held = (settings.max_threads + 1) * _block_images(images, settings)
    held *= 4 * (images.box_px**2 + box_px**2)
    source = size_text(images.bytes_of(np.arange(images.count)))
    say(
        f"plan: read {source} ({count} images of {images.box_px} px) on "
        f"{settings.max_threads} threads, {size_text(held)} of buffers; {allowance(None)}"
    )
    needed, folder = max(0, count * 4 * box_px**2 - there), plan.stacks[0][0].parent
    disk = DiskNeed(needed, f"{count} images of {box_px} px", folder, "a smaller -D")
    say(disk.line())
    disk.check()


def _block_images(images: ImageSource, settings: DownsampleSettings) -> int:
    """Return the images that a thread works on at a time."""
    block = max(1, BLOCK_BYTES // (4 * images.box_px**2))
    return min(block, settings.batch_size or block)


def _small_images(images: NDArray[np.float32], box_px: int) -> NDArray[np.float32]:
    """Return cropped images (n, D, D), a few at a time, so that they stay in a core's cache."""
    small = np.empty((len(images), box_px, box_px), np.float32)
    for start in range(0, len(images), SUB_BATCH):
        few = torch.from_numpy(images[start : start + SUB_BATCH])
        small[start : start + SUB_BATCH] = downsample_images(few, box_px).numpy()
    return small


def _refuse_complete(plan: StackPlan, settings: DownsampleSettings) -> None:
    """Raise OutputExistsError when all is there already, unless `settings.overwrite`."""
    if plan.final.exists() and not settings.overwrite:
        raise OutputExistsError(f"{plan.final}: exists already; give --overwrite to replace it")


def _begin(plan: StackPlan, table: ParticleTable, settings: DownsampleSettings) -> set[Path]:
    """Make the folders and the journal; return the stacks that an interrupted run left whole."""
    _refuse_complete(plan, settings)
    for folder in {plan.final.parent, *(path.parent for path, _ in plan.stacks)}:
        folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(plan)
    if plan.listing is None:
        return set()
    identity = _identity(plan, table, settings)
    there = {path for path, _ in plan.stacks if path.exists()}
    unfinished = plan.journal.is_file()
    if unfinished and plan.journal.read_bytes() == identity:
        return there
    if there and not settings.overwrite:
        left = " (of an unfinished run with other settings or input)" if unfinished else ""
        raise OutputExistsError(
            f"{min(there)}: exists already{left}; give --overwrite to replace it"
        )
    # Old files go before the journal names the new settings, or a resumed run would keep them.
    for path in (plan.listing, *there):
        path.unlink(missing_ok=True)
    write_bytes_atomic(plan.journal, identity)
    return set()


def _identity(plan: StackPlan, table: ParticleTable, settings: DownsampleSettings) -> bytes:
    """Return what decides the content of every stack, for the journal."""
    step = PackSettings(
        box_px=settings.box_px, window=False, uninvert_data=True, precision="float32"
    )
    stacks = [[str(path), len(rows)] for path, rows in plan.stacks]
    return msgspec.json.encode([image_fingerprint(table, step), stacks])


def _remove_leftovers(plan: StackPlan) -> None:
    """Remove hidden temporary files that a killed run left beside its stacks."""
    folders: dict[Path, set[str]] = {}
    for path, _ in plan.stacks:
        folders.setdefault(path.parent, set()).add(path.name)
    for folder, names in folders.items():
        for file in folder.glob(".*"):
            match = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.\w+", file.name)
            if match and match[1] in names:
                file.unlink(missing_ok=True)


def shared_pixel_size(table: ParticleTable, rows: Rows) -> float:
    """Return the pixel size in A that some rows share; 0.0 when it is unknown or differs."""
    sizes = table.rows["pixel_size_ang"][rows]
    if np.isnan(sizes).all():
        return read_header(Path(table.sources[table.rows["source"][rows[0]]])).pixel_size_ang
    same = np.abs(sizes / sizes[0] - 1) <= _SAME_SCALE  # False for NaN
    return float(sizes[0]) if same.all() else 0.0


def _describe(
    plan: StackPlan, kept: set[Path], box_px: int, problems: tuple[list[int], list[Path]]
) -> Iterator[str]:
    """Yield what was written, and what the user should know of it."""
    bad, unscaled = problems
    if kept:
        yield f"{len(kept)} of {len(plan.stacks)} stacks were there from an interrupted run"
    count = sum(len(rows) for _, rows in plan.stacks)
    first = plan.stacks[0][0]
    where = f"{first}: " if len(plan.stacks) == 1 else f"{len(plan.stacks)} stacks, first {first}: "
    pixel_size_ang = read_header(first).pixel_size_ang
    scale = f", {pixel_size_ang:.6g} A/px" if pixel_size_ang else ""
    yield f"{where}{count} images of {box_px} px{scale}"
    if unscaled:
        yield (
            f"note: {unscaled[0]}{' and others' if len(unscaled) > 1 else ''}: no pixel size in "
            "the header, because that of the input is unknown or differs between rows"
        )
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        yield f"warning: {len(bad)} images have non-finite pixels: rows {shown} (0-based)"
