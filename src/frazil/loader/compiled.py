"""Loops that are compiled where they are first used.

Owns: the decoding of int8 on a processor. Does not own: the way of compiling (`frazil.io.compiled`,
whose names are given on here), what is decoded (`batches`); any other type and device takes torch
there, to the same bits.
"""

from typing import Any

import numpy as np

from frazil.io.compiled import Kernel, compiled

__all__ = ["Kernel", "compiled", "decode_int8"]


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
