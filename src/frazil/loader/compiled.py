"""Loops that are compiled where they are first used.

Owns: the way of compiling, and the decoding of int8 on a processor. Does not own: what is decoded
(`batches`); any other type and device takes torch there, to the same bits.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

Kernel = Callable[..., None]


def compiled(function: Callable[..., Any], **options: Any) -> Kernel:
    """Return the function compiled; kept on disk where a cache folder can be written."""
    try:
        kernel: Kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        kernel = numba.njit(**options)(function)
    return kernel


def _decode_int8(codes: Any, step: Any, scale: Any, column: int, out: Any) -> None:
    # Unsigned indices: with others the compiler does not vectorise.
    first = np.uintp(column)
    for row in range(np.uintp(codes.shape[0])):
        for i in range(np.uintp(codes.shape[1])):
            out[row, first + i] = (np.float32(codes[row, i]) * step[first + i]) * scale[row]


# decode_int8(codes, step, scale, column, out): out[b, column + i] = codes[b, i] step[column + i]
# scale[b], for codes (B, 2 P_b) int8, step (2 P,), scale (B,), out (B, 2 P) float32.
# No fast maths: torch rounds after each product too.
decode_int8 = compiled(_decode_int8, nogil=True, error_model="numpy")
