"""Compiling loops where they are first used.

Owns: the way of compiling. Does not own: the loops (`frazil.io.star_compiled`,
`frazil.loader.compiled` and others).
"""

from collections.abc import Callable
from typing import Any

import numba

Kernel = Callable[..., Any]


def compiled(function: Callable[..., Any], **options: Any) -> Kernel:
    """Return the function compiled; kept on disk where a cache folder can be written."""
    try:
        kernel: Kernel = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        kernel = numba.njit(**options)(function)
    return kernel
