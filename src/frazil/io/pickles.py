"""cryoDRGN's .pkl files: the only module that unpickles, and it runs nothing.

Owns: the restricted unpickler (numpy arrays and builtin containers only) and the checks of poses,
CTF parameters and row selections. Does not own: joining them to particles (`frazil.io.particles`).
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frazil.errors import InputError, MissingFileError
from frazil.io.atomic import atomic_path
from frazil.io.npy import load_npy, one_line

_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_CONTAINERS = {"set": set, "frozenset": frozenset, "complex": complex}
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    MemoryError,
    OverflowError,
    RecursionError,
)
_MEMO_NUMBERS = {"PUT", "BINPUT", "LONG_BINPUT"}
_ORTHOGONAL_TOLERANCE = 1e-3
# Some particles end beyond half the box in any refinement; more do when shifts are in pixels.
_MOST_FAR_SHIFTS = 0.01


class _NdarrayName:
    """Stands for numpy.ndarray inside a pickle, so that a pickle cannot call it with a size."""


class _Unpickler(pickle.Unpickler):
    """Unpickles numpy arrays, numpy scalars and builtin containers; refuses all other names."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle may name, or raise InputError with the name it asked for."""
        if (module, name) == ("numpy", "ndarray"):
            return _NdarrayName
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if module in _NUMPY_MODULES and name == "_reconstruct":
            return _empty_array
        if module in _NUMPY_MODULES and name == "scalar":
            return _scalar
        if module in _BUFFER_MODULES and name == "_frombuffer":
            return _array_from_buffer
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) == ("__builtin__", "bytes"):
            return _empty_bytes
        if module in ("builtins", "__builtin__") and name in _CONTAINERS:
            return _CONTAINERS[name]
        raise InputError(
            f"{self._path}: refused, because unpickling it would run {module}.{name}; a pickle of "
            "numpy arrays and tuples is wanted (never load this file with pickle)"
        )


def _empty_array(kind: type, shape: tuple[int, ...], _typecode: object) -> NDArray[Any]:
    """Return the empty array that a pickle fills; its data, so its size, is in the file."""
    if kind is not _NdarrayName or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array that is not plain, or of a size not in the file")
    return np.empty(0, np.int8)


def _array_from_buffer(
    buffer: bytes,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Any,
    axis_order: tuple[int, ...] | None = None,
) -> NDArray[Any]:
    """Return an array over bytes of the file (pickle protocol 5)."""
    flat = np.frombuffer(buffer, dtype)
    if axis_order is not None:
        return flat.reshape(shape).transpose(axis_order)
    return flat.reshape(shape, order=order)


def _scalar(dtype: np.dtype[Any], data: Any) -> Any:
    """Return the numpy scalar whose bytes are in the file."""
    if dtype.hasobject or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError(f"a scalar of {dtype} without its bytes")
    return np.frombuffer(data, dtype)[0]


def _empty_bytes() -> bytes:
    """Return the empty bytes, which protocols below 3 write as a call without arguments."""
    return b""


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Return the bytes that Python 2 and protocols below 3 write as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoding {encoding}")
    return text.encode("latin1")


def read_pickle(path: Path) -> Any:
    """Return the first object in a pickle file of numpy arrays and builtin containers.

    Raises
    ------
    MissingFileError : no such file.
    InputError : anything else is named in it (nothing of it is run), or it is damaged.
    """
    return _load(path, all_objects=False)[0]


def read_all_pickles(path: Path) -> list[Any]:
    """Return every object of a file of consecutive pickles (cryoDRGN's z.N.pkl: mu, logvar)."""
    return _load(path, all_objects=True)


def _load(path: Path, all_objects: bool) -> list[Any]:
    """Return the first, or all, of the objects in a file; errors as `read_pickle`."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    stream = io.BytesIO(data)
    objects: list[Any] = []
    try:
        while not objects or (all_objects and stream.tell() < len(data)):
            _check_sizes(stream, len(data))
            objects.append(_Unpickler(stream, path).load())
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(
            f"{path}: not a readable pickle of numpy arrays "
            f"({type(error).__name__}: {one_line(error)}); write the file again"
        ) from error
    return objects


def _check_sizes(stream: io.BytesIO, size_bytes: int) -> None:
    """Raise unless all that the next pickle says of sizes is in the file; `stream` stays there.

    The unpickler makes room for what a length or a memo number says before it looks for it.
    """
    start = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in _MEMO_NUMBERS and isinstance(argument, int) and argument > size_bytes:
            raise pickle.UnpicklingError(f"a memo number of {argument}")
    stream.seek(start)


def write_pickle(path: Path, *values: Any) -> None:
    """Write numpy arrays, or containers of them, as a pickle that cryoDRGN reads (protocol 4).

    Several values become consecutive pickles of one file (see `read_all_pickles`).
    """
    with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
        for value in values:
            pickle.dump(value, file, protocol=4)


def read_poses(
    path: Path, n: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return rotations (N, 3, 3) and shifts (N, 2) of a cryoDRGN pose.pkl.

    Rotations map model to image frame; shifts (x, y) are fractions of the box, None when the file
    holds rotations alone.

    Parameters
    ----------
    path : the .pkl file.
    n : number of particles that it must have.

    Raises
    ------
    InputError : another shape or number, NaN, a matrix that is no rotation (to 1e-3), or shifts in
        pixels.
    """
    value = read_pickle(path)
    pair = value if isinstance(value, tuple | list) else (value, None)
    if len(pair) == 1:
        pair = (pair[0], None)
    if len(pair) != 2:
        raise InputError(f"{path}: (rotations, shifts) wanted, found {len(pair)} objects")
    rotation = _float_array(pair[0], path, "rotations")
    if rotation.ndim != 3 or rotation.shape[1:] != (3, 3):
        raise InputError(f"{path}: rotations (N, 3, 3) wanted, found {rotation.shape}")
    _check_count(len(rotation), n, path)
    _check_finite(rotation, path, "rotation")
    _check_rotations(rotation, path)
    if pair[1] is None:
        return rotation, None
    shift = _float_array(pair[1], path, "shifts")
    if shift.shape != (len(rotation), 2):
        raise InputError(f"{path}: shifts {(len(rotation), 2)} wanted, found {shift.shape}")
    _check_finite(shift, path, "shift")
    far = np.flatnonzero((np.abs(shift) > 1).any(axis=1))
    beyond_half = far_shifts(shift)
    if far.size or len(beyond_half) > _MOST_FAR_SHIFTS * len(shift):
        row = int((far if far.size else beyond_half)[0])
        than = "the box" if far.size else "half the box"
        raise InputError(
            f"{path}: row {row} (0-based) has a shift of {shift[row]}, more than {than} "
            f"({len(beyond_half)} of {len(shift)} rows are beyond half of it); shifts must be "
            "fractions of the box, not pixels: make the file again with frazil parse_pose_star or "
            "parse_pose_csparc"
        )
    return rotation, shift


def far_shifts(shift: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows whose shift (N, 2), a fraction of the box, is more than half of it."""
    return np.flatnonzero((np.abs(shift) > 0.5).any(axis=1))


def read_ctf(path: Path, n: int | None = None) -> NDArray[np.float64]:
    """Return the CTF parameters (N, 9) of a cryoDRGN ctf.pkl.

    Columns: box px, A/px, defocus U A, defocus V A, astigmatism angle deg, kV, Cs mm, amplitude
    contrast, phase shift deg.

    Raises
    ------
    InputError : another shape or number, NaN, or a box, pixel size or voltage that is not positive.
    """
    ctf = _float_array(read_pickle(path), path, "CTF parameters")
    if ctf.ndim != 2 or ctf.shape[1] != 9:
        raise InputError(
            f"{path}: CTF parameters (N, 9) wanted, found {ctf.shape}; make the file again with "
            "frazil parse_ctf_star or parse_ctf_csparc"
        )
    _check_count(len(ctf), n, path)
    _check_finite(ctf, path, "CTF")
    for column, what in ((0, "box"), (1, "pixel size"), (5, "voltage")):
        bad = np.flatnonzero(ctf[:, column] <= 0)
        if bad.size:
            raise InputError(
                f"{path}: row {bad[0]} (0-based) has a {what} of {ctf[bad[0], column]:g}; "
                "it must be positive"
            )
    return ctf


def read_selection(path: Path, n: int) -> NDArray[np.int64]:
    """Return the distinct rows (n_selected,) of a set of `n` that a selection names, in its order.

    Raises
    ------
    MissingFileError, InputError : as `read_indices` and `check_indices`; a mask of another length.
    """
    rows = read_indices(path, mask_length=n)
    check_indices(rows, n, path)
    return rows


def read_indices(path: Path, mask_length: int | None = None) -> NDArray[np.int64]:
    """Return the row numbers (n,), 0-based, of a selection: .pkl, .npy, or .txt (one per line).

    A boolean array is taken as a mask over all rows, of which there must be `mask_length`.

    Raises
    ------
    MissingFileError : no such file.
    InputError : not a list of integers, empty, or a mask of another length.
    """
    path = Path(path)
    if path.suffix == ".sel":
        raise InputError(
            f"{path}: knows particles by identity, row numbers are wanted here; make them with "
            "frazil select FILE --and SEL -o ind.pkl"
        )
    rows = _load_rows(path)
    if rows.dtype == bool and rows.ndim == 1:
        if mask_length not in (None, len(rows)):
            raise InputError(
                f"{path}: a mask over {len(rows)} particles, but there are {mask_length}: the "
                "selection belongs to another set"
            )
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"{path}: a list of integers wanted, found {rows.dtype} of shape {rows.shape}"
        )
    if not rows.size:
        raise InputError(f"{path}: the selection is empty")
    if rows.max() > np.iinfo(np.int64).max:
        raise InputError(f"{path}: entry {rows.argmax()} (0-based) is {rows.max()}, no row number")
    return rows.astype(np.int64)


def _load_rows(path: Path) -> NDArray[Any]:
    """Return what a selection file holds as an array, whatever its type and shape."""
    if not path.exists():
        raise MissingFileError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a file of row numbers is wanted")
    try:
        if path.suffix == ".npy":
            value = load_npy(path)
        elif path.suffix == ".txt":
            value = np.array(path.read_text().split(), dtype=np.int64)
        else:
            value = read_pickle(path)
        if isinstance(value, set | frozenset):
            value = sorted(value)
        if isinstance(value, list | tuple):
            return _row_array(value, path)
        return np.asarray(value)
    except InputError:
        raise
    except (ValueError, TypeError, EOFError, OverflowError) as error:
        raise InputError(f"{path}: row numbers wanted ({one_line(error)})") from error


def _row_array(values: list[Any] | tuple[Any, ...], path: Path) -> NDArray[Any]:
    """Return row numbers as an array; lists in lists, which may be endless, are refused."""
    odd = next((v for v in values if not isinstance(v, int | np.integer | np.bool_)), None)
    if odd is not None:
        raise InputError(f"{path}: row numbers wanted, found {type(odd).__name__} among them")
    return np.asarray(values)


def check_indices(indices: NDArray[np.int64], n: int, path: Path) -> None:
    """Raise InputError unless `indices` are distinct rows of a set of `n`; `path` is for the line.

    The message names the first bad entry of the selection.
    """
    bad = np.flatnonzero((indices < 0) | (indices >= n))
    if bad.size:
        raise InputError(
            f"{path}: entry {bad[0]} (0-based) is row {indices[bad[0]]}, but there are {n} "
            f"particles (rows 0 to {n - 1}); {bad.size} entries are out of range: the selection "
            "belongs to another set"
        )
    order = np.argsort(indices, kind="stable")
    repeated = order[1:][np.diff(indices[order]) == 0]
    if repeated.size:
        first = int(repeated.min())
        raise InputError(
            f"{path}: entry {first} (0-based) selects row {indices[first]} again; "
            f"{repeated.size} of {len(indices)} entries are repeats, leave them out"
        )


def _float_array(value: Any, path: Path, what: str) -> NDArray[np.float64]:
    """Return `value` as float64, or raise InputError when it is no array of numbers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise InputError(f"{path}: {what} wanted as a numpy array, found {type(value).__name__}")
    return value.astype(np.float64)


def _check_count(found: int, wanted: int | None, path: Path) -> None:
    """Raise InputError when a file has another number of rows than the particles."""
    if wanted is not None and found != wanted:
        raise InputError(
            f"{path}: {found} rows, but there are {wanted} particles; the file must belong to the "
            "same particles (use the one made from this input, before --ind)"
        )


def _check_finite(values: NDArray[np.float64], path: Path, what: str) -> None:
    """Raise InputError naming the first row that holds NaN or infinity."""
    finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite.all():
        row = int(np.argmin(finite))
        raise InputError(
            f"{path}: row {row} (0-based) has a {what} that is not a number "
            f"({int((~finite).sum())} of {len(values)} rows); parse the original file again with "
            "frazil, or leave the rows out with --ind"
        )


def _check_rotations(rotation: NDArray[np.float64], path: Path) -> None:
    """Raise InputError naming the first matrix that is not a proper rotation."""
    gram = rotation @ rotation.transpose(0, 2, 1)
    error = np.abs(gram - np.eye(3)).max(axis=(1, 2), initial=0.0)
    bad = np.flatnonzero(error > _ORTHOGONAL_TOLERANCE)
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0]} (0-based) is no rotation matrix (R R^T differs from 1 by "
            f"{error[bad[0]]:.2g}; {bad.size} of {len(rotation)} rows); make the file again from "
            "the original"
        )
    bad = np.flatnonzero(np.linalg.det(rotation) < 0)
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0]} (0-based) mirrors (determinant -1; {bad.size} of "
            f"{len(rotation)} rows): no rotation turns a particle into its mirror image; make the "
            "file again from the original"
        )
