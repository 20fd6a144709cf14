"""The work of write_star: particles, poses, CTF and a selection become one STAR file.

Owns: what goes with which input, the names of the images, and the warnings. Does not own: the
columns (`star_particles`), the format (`star_writer`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.images import open_particles
from frazil.io.outputs import check_output
from frazil.io.parse import scale_warning
from frazil.io.particles import ParticleTable
from frazil.io.paths import NO_HINTS, resolve_stacks
from frazil.io.pickles import read_ctf, read_poses
from frazil.io.selection_file import read_rows_of
from frazil.io.star import copy_rows, particles_from_star, read_star, split_image_name, write_star
from frazil.io.star_format import StarTable
from frazil.io.star_labels import RELION, dialect_of
from frazil.io.star_particles import MADE, star_blocks
from frazil.io.text import read_list
from frazil.io.tool_settings import WriteStarSettings

Rows = NDArray[np.int64]


def write_particle_star(settings: WriteStarSettings) -> list[str]:
    """Write the STAR file that the settings ask for; return lines that say what was written.

    A .star is copied, every column and table as it is, but for `relion30` of one with an optics
    table. Pickles of poses
    and CTF belong to all rows of the input, before --ind.

    Raises
    ------
    InputError : poses or CTF that do not fit the input, or a missing pixel size.
    """
    source, out = Path(settings.particles), Path(settings.out)
    check_output(out, (".star",), [source])
    lines = _from_star(settings) if source.suffix == ".star" else _from_others(settings)
    return [*lines, *_unfound(out)]


def _from_star(settings: WriteStarSettings) -> list[str]:
    """Copy rows of a .star, or write them without an optics table."""
    source, out = Path(settings.particles), Path(settings.out)
    for flag, value in (("--poses", settings.poses), ("--ctf", settings.ctf)):
        if value:
            raise InputError(
                f"{flag} {value}: {source} has its own; leave {flag} out, or give the stacks "
                "(.mrcs, .txt)"
            )
    star = read_star(source)
    rows = _rows(settings, len(star.particles))
    said = f"{out}: {len(rows)} of {len(star.particles)} particles"
    is_relion = dialect_of(star.particles) is RELION
    same_version = is_relion and (star.optics is None or not settings.relion30)
    if same_version and not settings.full_path:
        copy_rows(source, out, rows)
        return [f"{said}, all columns as they were"]
    table = particles_from_star(source, settings.places())
    full = settings.full_path or not is_relion
    all_names = _full_names(table) if full else star.particles.strings(RELION.image)
    names = [all_names[row] for row in rows.tolist()]
    if is_relion and (same_version or not table.has_pixel_size):
        copy_rows(source, out, rows, {"_rlnImageName": names})
        kept = "" if same_version else "; no pixel size is known, so the version stays"
        return [f"{said}, all other columns as they were{kept}"]
    other = _other_columns(star.particles, rows) if is_relion else {}
    write_star(out, star_blocks(table.take(rows), names, other, settings.relion30))
    return [f"{said}, RELION {'3.0' if settings.relion30 else '3.1'}", *table.notes]


def _from_others(settings: WriteStarSettings) -> list[str]:
    """Write the particles of stacks, a list or a .cs."""
    source, out = Path(settings.particles), Path(settings.out)
    table = open_particles(source, settings.places(), poses=settings.poses is None)
    if settings.ctf is None and not table.has_ctf:
        raise InputError(f"{source}: says nothing of the CTF; give --ctf ctf.pkl")
    lines = []
    header_ang = table.rows["pixel_size_ang"]
    if settings.ctf:
        table = table.with_ctf(read_ctf(Path(settings.ctf), len(table)))
        lines += scale_warning(table, header_ang, settings.ctf)
    if settings.poses:
        table = table.with_poses(*read_poses(Path(settings.poses), len(table)))
    rows = _rows(settings, len(table))
    names = _full_names(table) if settings.full_path else _plain_names(table, source)
    chosen = [names[row] for row in rows.tolist()]
    write_star(out, star_blocks(table.take(rows), chosen, {}, settings.relion30))
    sizes = np.unique(table.rows["pixel_size_ang"].astype(np.float32))
    scale = ", ".join(f"{size:.6g}" for size in sizes[:3].tolist())
    lines.append(f"{out}: {len(rows)} of {len(table)} particles, {scale} A/px")
    return lines


def _rows(settings: WriteStarSettings, count: int) -> Rows:
    """Return the rows to write, in the order of --ind."""
    if not settings.ind:
        return np.arange(count)
    return read_rows_of(Path(settings.ind), Path(settings.particles), count)


def _full_names(table: ParticleTable) -> list[str]:
    """Return "index@absolute path" of every row."""
    return _names(table, list(table.sources))


def _plain_names(table: ParticleTable, source: Path) -> list[str]:
    """Return "index@stack" of every row, stacks called as in the list or on the command line."""
    if source.suffix in (".mrcs", ".mrc", ".st"):
        return _names(table, [str(source)])
    if source.suffix == ".txt":
        listed = list(dict.fromkeys(read_list(source)))
        if len(listed) == len(table.sources):  # else two names of one file
            return _names(table, listed)
    return _full_names(table)


def _names(table: ParticleTable, stacks: list[str]) -> list[str]:
    pairs = zip(table.rows["index"].tolist(), table.rows["source"].tolist(), strict=True)
    return [f"{index + 1:06d}@{stacks[source]}" for index, source in pairs]


def _other_columns(particles: StarTable, rows: Rows) -> dict[str, list[str]]:
    """Return the columns of a .star that mean the same in both versions, for some rows."""
    kept = {}
    for label in particles.names:
        if label not in MADE:
            values = particles.strings(label)
            kept[label] = [values[row] for row in rows.tolist()]
    return kept


def _unfound(out: Path) -> list[str]:
    """Return the note that a stack will not be found by the name that the file gives it."""
    names = read_star(out).particles.iterate("_rlnImageName")
    stacks = list(dict.fromkeys(split_image_name(name)[1] for name in names))
    try:
        found = resolve_stacks(stacks, out, NO_HINTS)
    except InputError as error:  # two names of one file; the copy names them as the input does
        return [f"note: {error}"]
    lost = [path for path in found if not Path(path).is_file()]
    if not lost:
        return []
    return [
        f"note: {len(lost)} of {len(stacks)} stacks are not found by the names in {out} (the first "
        f"was looked for at {lost[0]}); read it with --datadir, or give --full-path"
    ]
