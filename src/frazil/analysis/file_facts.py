"""What is in an MRC file, a pickle or an .npy file.

Owns: their facts. Does not own: the formats (`frazil.io`).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.analysis.facts import Facts
from frazil.errors import InputError
from frazil.io.mrc import read_header, read_images
from frazil.io.pickles import read_all_pickles
from frazil.store.budget import size_text

_SAMPLE_SECTIONS = 16
_CTF = (
    ("box", "px", "px"),
    ("pixel size", "A/px", "ang"),
    ("defocus U", "A", "ang"),
    ("defocus V", "A", "ang"),
    ("astigmatism angle", "deg", "deg"),
    ("voltage", "kV", "kv"),
    ("Cs", "mm", "mm"),
    ("amplitude contrast", "", ""),
    ("phase shift", "deg", "deg"),
)


def describe_mrc(path: Path) -> Facts:
    """Return the header of a stack or volume, and the grey values of a few sections."""
    header = read_header(path)
    volume = header.is_volume or (path.suffix in (".mrc", ".map") and header.nx == header.nz)
    facts = Facts(path, "volume (MRC)" if volume else "stack of images (MRC)")
    what = "size" if volume else "images"
    facts.add(
        what,
        f"{header.nx} x {header.ny} x {header.nz} px"
        if volume
        else f"{header.nz} of {header.nx} x {header.ny} px",
        [header.nx, header.ny, header.nz],
    )
    size = header.pixel_size_ang
    text = f"{size:.6g} A/px; box {size * header.nx:.5g} A" if size else "unknown"
    facts.add("pixel size", text, size or None, "ang")
    order = {"<": "little", ">": "big"}[header.byte_order]
    facts.add("values", f"mode {header.mode} ({header.dtype.name}), {order} endian", header.mode)
    bytes_ = path.stat().st_size
    facts.add("on disk", size_text(bytes_), bytes_, "bytes")
    if header.whole_images < header.nz:
        facts.notes.append(
            f"cut short: {header.whole_images} of {header.nz} sections are whole; copy it again"
        )
    if header.nx != header.ny or header.nx % 2:
        facts.notes.append("images of an even, square box are wanted for reconstruction")
    if header.whole_images:
        count = min(_SAMPLE_SECTIONS, header.whole_images)
        chosen = np.unique(np.linspace(0, header.whole_images - 1, count).astype(np.int64))
        sample = read_images(header, chosen)
        _add_grey(facts, sample, f"of {len(chosen)} sections")
    return facts


def _add_grey(facts: Facts, sample: NDArray[np.float32], of_what: str) -> None:
    finite = np.isfinite(sample)
    if not finite.all():
        facts.notes.append(f"{int((~finite).sum())} values {of_what} are not finite numbers")
    values = sample[finite].astype(np.float64)
    if values.size:
        low, high, mean, deviation = values.min(), values.max(), values.mean(), values.std()
        facts.add(
            "grey values",
            f"{low:.4g} to {high:.4g}, mean {mean:.4g}, deviation {deviation:.4g} ({of_what})",
            [float(low), float(high), float(mean), float(deviation)],
        )


def describe_arrays(path: Path) -> Facts:
    """Return what a pickle of cryoDRGN's kinds, or an .npy file, holds."""
    if path.suffix == ".npy":
        try:
            objects: list[Any] = [np.load(path, allow_pickle=False)]
        except (ValueError, EOFError) as error:
            raise InputError(f"{path}: not a plain .npy file ({error})") from error
    else:
        objects = read_all_pickles(path)
        if len(objects) == 1 and isinstance(objects[0], tuple | list):
            objects = list(objects[0])
    arrays = [value for value in objects if isinstance(value, np.ndarray)]
    if not arrays or len(arrays) < len(objects):
        kinds = ", ".join(type(value).__name__ for value in objects[:4])
        facts = Facts(path, "pickle")
        facts.add("holds", f"{len(objects)} objects: {kinds}", len(objects))
        return facts
    first = arrays[0]
    numbers = all(array.dtype.kind in "fiu" for array in arrays)
    if numbers and first.ndim == 3 and first.shape[1:] == (3, 3):
        return _poses(path, first, arrays[1] if len(arrays) > 1 else None)
    if numbers and first.ndim == 2 and first.shape[1] == 9 and len(arrays) == 1:
        return _ctf(path, first)
    if first.ndim == 1 and first.dtype.kind in "iu":
        return _indices(path, first)
    facts = Facts(path, "arrays" if len(arrays) > 1 else "array")
    for number, array in enumerate(arrays):
        label = f"array {number}"
        facts.add(label, f"{array.dtype} {array.shape}", list(array.shape))
        if array.dtype.kind in "fiu":
            facts.add_range(f"{label} range", array, "", "")
            _note_unknown(facts, array, label)
    return facts


def _note_unknown(facts: Facts, array: NDArray[Any], what: str) -> None:
    """Note rows that hold values which are not finite numbers."""
    known = np.atleast_1d(np.isfinite(array))
    bad = np.flatnonzero(~known.all(axis=tuple(range(1, known.ndim))))
    if bad.size:
        facts.notes.append(
            f"{what}: {len(bad)} rows are not finite numbers, the first is row {bad[0]} (0-based)"
        )


def _poses(path: Path, rotation: NDArray[Any], shift: NDArray[Any] | None) -> Facts:
    facts = Facts(path, "poses (cryoDRGN)")
    facts.add("particles", f"{len(rotation)}", len(rotation))
    facts.add("rotations", f"{rotation.dtype} {rotation.shape}", list(rotation.shape))
    matrices = rotation.astype(np.float64)
    gram = matrices @ matrices.transpose(0, 2, 1)
    error = float(np.abs(gram - np.eye(3)).max(initial=0.0))
    mirrored = int((np.linalg.det(matrices) < 0).sum())
    text = f"R R^T differs from 1 by at most {error:.2g}; {mirrored} mirror"
    facts.add("orthogonality", text, {"error": error, "mirrored": mirrored})
    _note_unknown(facts, rotation, "rotations")
    if shift is None:
        facts.add("shifts", "none in the file", None)
        return facts
    facts.add("shifts", f"{shift.dtype} {shift.shape}", list(shift.shape))
    facts.add_range("shift range", shift, "of the box", "fraction")
    _note_unknown(facts, shift, "shifts")
    if np.nanmax(np.abs(shift), initial=0.0) > 1:
        facts.notes.append("shifts are larger than the box: in pixels? fractions are wanted")
    return facts


def _ctf(path: Path, ctf: NDArray[Any]) -> Facts:
    facts = Facts(path, "CTF parameters (cryoDRGN)")
    facts.add("particles", f"{len(ctf)} ({ctf.dtype})", len(ctf))
    for place, (label, unit, key_unit) in enumerate(_CTF):
        facts.add_range(label, ctf[:, place], unit, key_unit)
    _note_unknown(facts, ctf, "CTF")
    return facts


def _indices(path: Path, rows: NDArray[Any]) -> Facts:
    facts = Facts(path, "selection of rows")
    facts.add("rows", f"{len(rows)} ({rows.dtype})", len(rows))
    if len(rows):
        facts.add_range("range", rows, "(0-based)", "")
        ascending = bool((np.diff(rows.astype(np.int64)) > 0).all())
        facts.add("ascending", "yes" if ascending else "no", ascending)
        repeats = len(rows) - len(np.unique(rows))
        facts.add("repeats", f"{repeats}", repeats)
    return facts
