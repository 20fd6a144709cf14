"""What is in a particle file: .star, .cs, .txt, .ft.txt.

Owns: the questions asked of a particle table and of the headers of its stacks. Does not own: the
formats (`frazil.io`) or the wording of single files (`file_facts`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from frazil.analysis.facts import Facts, counts_text
from frazil.errors import FrazilError, InputError
from frazil.io.images import open_particles
from frazil.io.mrc import MrcHeader, read_header
from frazil.io.particles import CTF_COLUMNS, ParticleTable
from frazil.io.paths import Places
from frazil.io.star import read_star
from frazil.io.star_labels import version_of
from frazil.store.budget import size_text

_HEADER_THREADS = 8
_SUFFIX_KINDS = {
    ".cs": "cryoSPARC particles",
    ".csg": "cryoSPARC particles",
    ".txt": "list of stacks",
}


def describe_particles(path: Path, places: Places) -> Facts:
    """Return the facts of a particle file, its stacks included where they are there."""
    try:
        table = open_particles(path, places)
    except InputError as error:
        if path.suffix not in (".cs", ".csg") and not path.is_dir():
            raise
        table = open_particles(path, places, poses=False)  # e.g. of an ab-initio job
        table = replace(table, notes=(*table.notes, f"poses not read: {error}"))
    facts = Facts(path, _kind(path))
    facts.add("particles", f"{len(table)}", len(table))
    if len(table):
        _add_stacks(facts, table)
        add_table(facts, table)
    facts.notes += [note.removeprefix(f"{path}: ") for note in table.notes]
    return facts


def _kind(path: Path) -> str:
    """Return what kind of particle file it is; of a STAR file, whose."""
    if path.suffix.lower() == ".star":
        return f"particles ({version_of(read_star(path))})"
    return _SUFFIX_KINDS.get(path.suffix.lower(), "cryoSPARC job")


def add_table(facts: Facts, table: ParticleTable, size_label: str = "pixel size") -> None:
    """Add what the metadata say: box, pixel size, poses, shifts, CTF, groups, duplicates."""
    rows = table.rows
    if table.box_px:
        facts.add("box", f"{table.box_px} px", table.box_px, "px")
    _add_pixel_size(facts, table, size_label)
    _add_known(facts, "poses", np.isfinite(rows["rotation"]).all(axis=(1, 2)))
    _add_shifts(facts, table)
    _add_ctf(facts, table)
    _add_groups(facts, table)
    if table.blob_sign is not None:
        sense = "dark" if table.blob_sign < 0 else "light"
        facts.add("blob sign", f"{table.blob_sign:+d} (particles {sense})", table.blob_sign)
    _add_duplicates(facts, table)


def _add_stacks(facts: Facts, table: ParticleTable) -> None:
    """Add the stacks that are used: how many are there, whole, and of which box."""
    numbers, stack_of_row = np.unique(table.rows["source"], return_inverse=True)
    used = [table.sources[number] for number in numbers.tolist()]
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        found = list(pool.map(_header_or_reason, used))
    headers = [header for header in found if isinstance(header, MrcHeader)]
    missing = [path for path, header in zip(used, found, strict=True) if header is None]
    text = f"{len(used)}, all present" if not missing else f"{len(used)}, {len(missing)} missing"
    facts.add("stacks", text, {"used": len(used), "missing": len(missing)})
    if missing:
        facts.notes.append(f"missing: {missing[0]}{', ...' if len(missing) > 1 else ''}")
    facts.notes += [reason for reason in found if isinstance(reason, str)][:3]
    cut = [header for header in headers if header.whole_images < header.nz]
    facts.notes += [
        f"cut short: {h.path}: {h.whole_images} of {h.nz} images are whole" for h in cut[:3]
    ]
    _note_beyond(facts, table, stack_of_row, found)
    if not headers:
        return
    sides = sorted({header.nx for header in headers})
    images = sum(header.nz for header in headers)
    size = sum(header.nz * header.frame_bytes for header in headers)
    kinds = ", ".join(sorted({header.dtype.name for header in headers}))
    facts.add(
        "stored images",
        f"{images} of {' or '.join(map(str, sides))} px, {kinds}, {size_text(size)}",
        {"images": images, "sides_px": list(sides), "types": kinds, "bytes": size},
    )
    if table.box_px and not {table.box_px, table.box_px + 1} & set(sides):
        facts.notes.append(f"the box is {table.box_px} px in the file, {sides[0]} px in the stacks")


def _note_beyond(
    facts: Facts,
    table: ParticleTable,
    stack_of_row: np.ndarray,
    found: list[MrcHeader | str | None],
) -> None:
    """Note the rows whose image index is past the end of their stack; `stack_of_row` is (N,)."""
    any_index = np.iinfo(np.int64).max
    counts = np.array([h.nz if isinstance(h, MrcHeader) else any_index for h in found])
    beyond = np.flatnonzero(table.rows["index"] >= counts[stack_of_row])
    if beyond.size:
        row = int(beyond[0])
        facts.notes.append(
            f"row {row} (0-based) wants image {table.rows['index'][row]} (0-based) of a stack of "
            f"{counts[stack_of_row[row]]} ({beyond.size} rows do so)"
        )


def _header_or_reason(path: str) -> MrcHeader | str | None:
    """Return a stack's header, None when it is not there, or why it cannot be read."""
    try:
        return read_header(Path(path)) if Path(path).exists() else None
    except FrazilError as error:
        return str(error)


def _add_known(facts: Facts, label: str, known: np.ndarray) -> bool:
    """Add whether all, some or no rows have something; return whether any has."""
    count = int(known.sum())
    text = {0: "no", len(known): "yes"}.get(count, f"{count} of {len(known)} rows only")
    facts.add(label, text, count)
    return count > 0


def _add_pixel_size(facts: Facts, table: ParticleTable, label: str) -> None:
    sizes = table.rows["pixel_size_ang"]
    known = sizes[np.isfinite(sizes)]
    if not known.size:
        facts.add(label, "unknown", None, "ang")
        return
    distinct = np.unique(np.round(known, 5))
    text = " or ".join(f"{size:.6g}" for size in distinct[:4]) + " A/px"
    text += f" ({len(distinct)} different)" if len(distinct) > 1 else ""
    if table.box_px:
        text += f"; box {known[0] * table.box_px:.5g} A, Nyquist {2 * known[0]:.4g} A"
    facts.add(label, text, distinct.tolist(), "ang")


def _add_shifts(facts: Facts, table: ParticleTable) -> None:
    shifts = table.rows["shift_ang"].astype(np.float64)
    known = np.isfinite(shifts).all(axis=1)
    if not known.any():
        facts.add("shifts", "no", None, "ang")
        return
    length = np.linalg.norm(shifts[known], axis=1)
    rms, most = float(np.sqrt(np.mean(length**2))), float(length.max())
    facts.add("shifts", f"RMS {rms:.4g} A, largest {most:.4g} A", [rms, most], "ang")


def _add_ctf(facts: Facts, table: ParticleTable) -> None:
    """Add the ranges of the CTF parameters."""
    rows = table.rows
    known = np.isfinite(np.stack([rows[name] for name in CTF_COLUMNS], axis=1)).all(axis=1)
    if not _add_known(facts, "CTF", known):
        return
    defocus = (rows["defocus_u_ang"] + rows["defocus_v_ang"]) / 2e4
    facts.add_range("defocus", defocus, "um", "um")
    difference = np.abs(rows["defocus_u_ang"] - rows["defocus_v_ang"])
    facts.add_range("astigmatism", difference, "A", "ang")
    microscope = (
        ("voltage", "voltage_kv", "kV", "kv"),
        ("Cs", "cs_mm", "mm", "mm"),
        ("amplitude contrast", "amplitude_contrast", "", ""),
        ("phase shift", "phase_shift_deg", "deg", "deg"),
    )
    for label, name, unit, key_unit in microscope:
        facts.add_range(label, rows[name], unit, key_unit)


def _add_groups(facts: Facts, table: ParticleTable) -> None:
    """Add optics groups, half-sets, and groups (tilt series or micrographs)."""
    rows = table.rows
    numbers, sizes = np.unique(rows["optics_group"], return_counts=True)
    if numbers.max(initial=-1) >= 0:
        names = [table.optics_groups[n] if n >= 0 else "(none)" for n in numbers.tolist()]
        counts = dict(zip(names, sizes.tolist(), strict=True))
        facts.add("optics groups", f"{len(counts)}: {counts_text(counts)}", counts)
    halves = {str(half): int((rows["half_set"] == half).sum()) for half in (1, 2)}
    if any(halves.values()):
        facts.add("half-sets", f"{halves['1']} and {halves['2']} particles", halves)
    group = rows["group"][rows["group"] >= 0]
    if group.size:
        sizes = np.bincount(group)
        sizes = sizes[sizes > 0]
        facts.add(
            "groups",
            f"{len(sizes)} of {sizes.min()} to {sizes.max()} images",
            {"count": len(sizes), "smallest": int(sizes.min()), "largest": int(sizes.max())},
        )


def _add_duplicates(facts: Facts, table: ParticleTable) -> None:
    """Add how many rows name an image, or a uid, that an earlier row has."""
    rows = table.rows
    places = np.stack([rows["source"].astype(np.int64), rows["index"]], axis=1)
    images = len(rows) - len(np.unique(places, axis=0))
    uids = rows["uid"][rows["uid"] != 0]
    repeats = len(uids) - len(np.unique(uids))
    text = "none" if not images + repeats else f"{images} rows repeat an image, {repeats} a uid"
    facts.add("duplicates", text, {"images": images, "uids": repeats})
