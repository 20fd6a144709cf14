"""What goes into a command: particles with their poses and CTF, and what identifies them.

Owns: joining --poses, --ctf and --ind with the particle file, and the questions that are asked of
a table before any image is read. Does not own: the table and the files (`frazil.io`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from frazil.errors import InputError, MissingFileError
from frazil.io.accounts import RowAccount
from frazil.io.identities import Identities
from frazil.io.images import GONE, open_particles
from frazil.io.particles import ParticleTable
from frazil.io.pickles import far_shifts, read_ctf, read_poses
from frazil.io.selection_file import read_rows
from frazil.preprocess.settings import InputSettings, PackSettings
from frazil.store.manifest import SourceFile
from frazil.store.reader import ParticleStore

SAME = 1e-3
"""Pixel sizes that differ by no more are one: the wave of a whole box is a pixel off at its end."""


def read_input(settings: InputSettings) -> tuple[ParticleTable, RowAccount]:
    """Return the particles asked for, and how many rows of the input they are.

    Pickles of poses and CTF belong to all rows of the particle file, before --ind.

    Raises
    ------
    InputError, MissingFileError : see `open_particles`, `read_poses`, `read_ctf`, `read_rows`.
    """
    table = open_particles(
        Path(settings.particles),
        settings.places(),
        poses=settings.poses is None,
        class_index=settings.class_index,
    )
    table = join_pickles(table, settings.poses, settings.ctf)
    if settings.ind is None:
        return table, RowAccount.all_of(len(table))
    notes = list(table.notes)
    indices = read_rows(
        Path(settings.ind),
        len(table),
        lambda _: Identities.of(table.rows, table.sources),
        table.origin,
        notes.append,
    )
    account = RowAccount(len(table), len(indices), {"--ind": len(table) - len(indices)})
    return replace(table.take(indices), notes=tuple(notes)), account


def join_pickles(table: ParticleTable, poses: str | None, ctf: str | None) -> ParticleTable:
    """Return the table with the poses and CTF of cryoDRGN pickles, where given.

    Raises
    ------
    InputError : the images have several boxes or pixel sizes, the pickles know only one; or the
        pickle of CTF knows another.
    """
    if (poses or ctf) and (len(set(table.boxes_px)) > 1 or mixes_pixel_sizes(table)):
        raise InputError(
            f"{poses or ctf}: is of images of one box and pixel size, {table.origin} has several; "
            "leave --poses and --ctf out: what the file itself says is used"
        )
    if ctf:
        parameters = read_ctf(Path(ctf), len(table))
        table = _noted(table, _compare_boxes(table, parameters, ctf)).with_ctf(parameters)
    if poses:
        rotation, shift = read_poses(Path(poses), len(table))
        table = _noted(table, _far_note(shift, poses))
        if not table.has_pixel_size and shift is not None and shift.any():
            note = "the pixel size is not known: 1 A/px is assumed (give --ctf)"
            table = _noted(table.with_pixel_size(1.0), note)
        table = table.with_poses(rotation, shift)
    return table


def _noted(table: ParticleTable, note: str | None) -> ParticleTable:
    """Return the table with one more note, if there is one."""
    return table if note is None else replace(table, notes=(*table.notes, note))


def _compare_boxes(table: ParticleTable, ctf: np.ndarray, path: str) -> str | None:
    """Return what to say when a ctf.pkl gives images another size in Angstrom than they have.

    Raises
    ------
    InputError : the particles have a CTF of their own, whose pixel size is another. What has none
        is a stack: the pixel size in its header is often wrong, so that of the ctf.pkl is used.
    """
    box_px, sizes = table.box_px, table.rows["pixel_size_ang"]
    if box_px is None:
        return None
    off = np.abs(ctf[:, 0] * ctf[:, 1] / (sizes * box_px) - 1) > SAME  # False for NaN
    if not off.any():
        return None
    row = int(np.argmax(off))
    found = (
        f"{path}: row {row} (0-based) has {ctf[row, 0]:g} px x {ctf[row, 1]:.6g} A/px = "
        f"{ctf[row, 0] * ctf[row, 1]:.6g} A, {table.origin} has {box_px} px x "
        f"{sizes[row]:.6g} A/px = {box_px * sizes[row]:.6g} A ({int(off.sum())} rows differ)"
    )
    if table.missing_ctf_columns:
        return f"{found}; that of {path} is used"
    raise InputError(
        f"{found}; leave --ctf out, or make it again with -D {box_px} --Apix {sizes[row]:.6g} "
        "(frazil parse_ctf_star, parse_ctf_csparc)"
    )


def _far_note(shift: np.ndarray | None, path: str) -> str | None:
    """Return what to say of shifts (N, 2) beyond half the box; None without such."""
    far = np.zeros(0) if shift is None else far_shifts(shift)
    if not far.size:
        return None
    return (
        f"{path}: {far.size} rows have shifts of more than half the box, first row {far[0]} "
        "(0-based): are they fractions of the box, not pixels?"
    )


def check_scale(store: ParticleStore, table: ParticleTable, ctf: str | None) -> None:
    """Raise InputError where --ctf gives a resampled store another pixel size than it has."""
    size = store.pixel_size_ang
    if ctf is None or size is None or not store.manifest.processing.resampled:
        return
    bad = np.flatnonzero(np.abs(table.rows["pixel_size_ang"] / size - 1) > SAME)
    if bad.size:
        raise InputError(
            f"{ctf}: row {bad[0]} (0-based) has {table.rows['pixel_size_ang'][bad[0]]:.4f} A/px at "
            f"the box of {store.path}, whose images were resampled to {size:.4f}; leave --ctf out"
        )


def used_sources(table: ParticleTable) -> ParticleTable:
    """Return the table with only those stacks that a row uses."""
    used, source = np.unique(table.rows["source"], return_inverse=True)
    rows = table.rows.copy()
    rows["source"] = source
    return replace(
        table,
        rows=rows,
        sources=tuple(table.sources[i] for i in used),
        boxes_px=tuple(table.boxes_px[i] for i in used) if table.boxes_px else (),
    )


def mixes_pixel_sizes(table: ParticleTable) -> bool:
    """Return whether pixel sizes of rows differ by more than `SAME` from that of row 0."""
    sizes = table.rows["pixel_size_ang"]
    return bool(len(sizes) and (np.abs(sizes / sizes[0] - 1) > SAME).any())


@dataclass(frozen=True, eq=False)
class DistinctImages:
    """The images of a table, each once, in reading order (source, index).

    `rows` (M,) is a table row of each image; `image_of_row` (N,) the image of each table row.
    """

    rows: np.ndarray
    image_of_row: np.ndarray

    @classmethod
    def of(cls, table: ParticleTable) -> "DistinctImages":
        """Return the distinct images; several particles may share one (symmetry expansion)."""
        places = np.stack([table.rows["source"].astype(np.int64), table.rows["index"]], axis=1)
        order = np.lexsort((places[:, 1], places[:, 0]))
        ordered = places[order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        image_of_row = np.empty(len(order), np.int64)
        image_of_row[order] = np.cumsum(fresh) - 1
        return cls(order[fresh], image_of_row)


def one_pixel_size(table: ParticleTable) -> float | None:
    """Return the pixel size of the source, A; None when unknown.

    Raises
    ------
    InputError : rows differ by more than 0.1 %; one stack cannot have two scales.
    """
    if not table.has_pixel_size:
        return None
    sizes = table.rows["pixel_size_ang"]
    first = float(sizes[0])
    bad = np.flatnonzero(np.abs(sizes / first - 1) > SAME)
    if bad.size:
        raise InputError(
            f"{table.origin}: row {bad[0]} (0-based) has {sizes[bad[0]]:.4f} A/px, row 0 has "
            f"{first:.4f}; pack them into a store, which resamples them (-o X.frz)"
        )
    return first


def source_file(path: str) -> SourceFile:
    """Return a stack's path, size and time of change.

    Raises
    ------
    MissingFileError : the stack is not there any more.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: {GONE}") from error
    return SourceFile(path, status.st_size, status.st_mtime_ns)


def image_fingerprint(table: ParticleTable, settings: PackSettings) -> str:
    """Return a digest of what decides a store's records: sources, identities and settings.

    Poses and CTF are not part of it: they can change without repacking. Pixel sizes are where they
    decide how images are resampled.
    """
    unimportant = {"max_threads", "memory", "strict", "drop_bad", "overwrite"}
    if settings.pixel_size_ang is None:
        unimportant.add("pixel_size_ang")
    important = {k: v for k, v in msgspec.structs.asdict(settings).items() if k not in unimportant}
    digest = xxhash.xxh3_64()
    digest.update(msgspec.json.encode(important, order="sorted"))
    digest.update(msgspec.json.encode([source_file(path) for path in table.sources]))
    columns = ["source", "index", "optics_group"]
    if settings.pixel_size_ang is not None or mixes_pixel_sizes(table):
        columns.append("pixel_size_ang")
    for column in columns:
        digest.update(np.ascontiguousarray(table.rows[column]).tobytes())
    return digest.hexdigest()
