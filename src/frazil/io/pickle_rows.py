"""Rows of cryoDRGN's pickles: a part of them, several joined, and shifts alone.

Owns: which arrays of a pickle have one row per particle, and that they stay in step. Does not own:
unpickling, and the checks of poses and CTF (`pickles`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.io.pickles import read_all_pickles, read_pickle, read_selection, write_pickle

Array = NDArray[Any]
Arrays = list[list[Array]]


def filter_pickle(
    path: Path, out: Path, ind: Path | None = None, first: int | None = None
) -> list[str]:
    """Write the rows of a pickle that a selection names; return lines that say what was written.

    Every array of the file is filtered: rotations and shifts of a pose.pkl, means and variances of
    a z.N.pkl, which are two pickles in one file.

    Parameters
    ----------
    path, out : pickle to read, pickle to write.
    ind : selection, in whose order the rows are written. Either this or `first`.
    first : number of rows to keep from the start.

    Raises
    ------
    InputError : neither or both of `ind` and `first`, rows that are not there, or a pickle of
        something else.
    """
    if (ind is None) == (first is None):
        raise InputError("give either --ind or --first" + (", not both" if ind else ""))
    objects = read_all_pickles(path)
    arrays = _arrays_of(objects, path)
    count = len(arrays[0][0])
    if ind is not None:
        rows = read_selection(ind, count)
    else:
        rows = np.arange(_checked_first(first or 0, count, path))
    write_pickle(out, *_rebuilt(objects, arrays, lambda group: [a[rows] for a in group]))
    return [f"{out}: {len(rows)} of {count} rows of {_shapes(arrays)}"]


def concat_pickles(paths: Sequence[Path], out: Path) -> list[str]:
    """Write the rows of several pickles one after the other; return lines that say what was done.

    Raises
    ------
    InputError : the files hold different kinds of things (number of arrays, row shapes, types).
    """
    objects = [read_all_pickles(path) for path in paths]
    arrays = [_arrays_of(each, path) for each, path in zip(objects, paths, strict=True)]
    for path, found in zip(paths, arrays, strict=True):
        if _kinds(found) != _kinds(arrays[0]):
            raise InputError(
                f"{path}: holds {_shapes(found)}, {paths[0]} {_shapes(arrays[0])}; "
                "only files of one kind can be joined"
            )
    joined = [
        [np.concatenate([found[i][j] for found in arrays]) for j in range(len(group))]
        for i, group in enumerate(arrays[0])
    ]
    groups = iter(joined)
    write_pickle(out, *_rebuilt(objects[0], arrays[0], lambda _: next(groups)))
    lines = [f"{path}: {_shapes(found)}" for path, found in zip(paths, arrays, strict=True)]
    return [*lines, f"{out}: {_shapes(joined)}"]


def read_shifts(path: Path, n: int, scale: float = 1.0) -> NDArray[np.float64]:
    """Return shifts (N, 2), x and y as fractions of the box, of a pose.pkl or of shifts alone.

    Parameters
    ----------
    n : number of particles that there must be.
    scale : factor of all shifts, applied before they are checked.

    Raises
    ------
    InputError : rotations alone, another shape or number, NaN, or a shift of more than the box.
    """
    value = read_pickle(path)
    shift = value[1] if isinstance(value, tuple | list) and len(value) == 2 else value
    if not isinstance(shift, np.ndarray) or shift.dtype.kind not in "fiu" or shift.ndim != 2:
        raise InputError(f"{path}: shifts (N, 2), or a pose.pkl with them, are wanted")
    if shift.shape != (n, 2):
        raise InputError(
            f"{path}: shifts of shape {shift.shape}, but there are {n} particles; the file must "
            "belong to the same particles"
        )
    scaled: NDArray[np.float64] = shift.astype(np.float64) * scale
    bad = np.flatnonzero(~(np.abs(scaled) <= 1).all(axis=1))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0]} (0-based) has a shift of {scaled[bad[0]]} boxes "
            f"({bad.size} rows beyond the box, or no numbers); fractions of the box are wanted, "
            "shifts in pixels need --tscale 1/D"
        )
    return scaled


def _arrays_of(objects: Sequence[Any], path: Path) -> Arrays:
    """Return the arrays of each object, all of one length, which is the number of particles."""
    arrays = [_group(value, path) for value in objects]
    flat = [array for group in arrays for array in group]
    if any(len(array) != len(flat[0]) for array in flat):
        raise InputError(
            f"{path}: holds {_shapes(arrays)}, whose numbers of rows differ; a pickle with one "
            "row per particle is wanted"
        )
    return arrays


def _group(value: Any, path: Path) -> list[Array]:
    """Return the arrays that an object of a pickle is made of."""
    group = list(value) if _is_group(value) else [np.asarray(value)]
    for array in group:
        if array.ndim < 1 or array.dtype.kind not in "biufcSU":
            raise InputError(
                f"{path}: arrays with one row per particle are wanted, found {type(value).__name__}"
            )
    return group


def _is_group(value: Any) -> bool:
    """Return whether an object is a tuple or list of arrays, as a pose.pkl is."""
    return (
        isinstance(value, tuple | list)
        and bool(value)
        and all(isinstance(part, np.ndarray) for part in value)
    )


def _rebuilt(
    objects: Sequence[Any], arrays: Arrays, change: Callable[[list[Array]], list[Array]]
) -> list[Any]:
    """Return objects of the same make with changed arrays."""
    return [
        type(value)(change(group)) if _is_group(value) else change(group)[0]
        for value, group in zip(objects, arrays, strict=True)
    ]


def _checked_first(first: int, count: int, path: Path) -> int:
    """Return --first, or raise InputError when there are not so many rows."""
    if not 1 <= first <= count:
        raise InputError(f"--first {first}: must be from 1 to the {count} rows of {path}")
    return first


def _kinds(arrays: Arrays) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Return type and row shape of every array."""
    return [[(a.dtype.kind, a.shape[1:]) for a in group] for group in arrays]


def _shapes(arrays: Arrays) -> str:
    """Return the shapes of all arrays as text."""
    return ", ".join(str(tuple(a.shape)) for group in arrays for a in group)
