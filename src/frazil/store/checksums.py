"""Checksums of records and of files: xxh3-64.

Owns: what is summed together. Does not own: where sums are kept, or what becomes of a difference.
"""

from pathlib import Path

import numpy as np
import xxhash

from frazil.errors import MissingFileError

_READ_BYTES = 1 << 20


def block_checksums(rows: np.ndarray, block_rows: int) -> np.ndarray:
    """Return xxh3-64 of every block of contiguous rows, (blocks,) uint64."""
    digests = [
        xxhash.xxh3_64_intdigest(rows[start : start + block_rows].data)
        for start in range(0, len(rows), block_rows)
    ]
    return np.array(digests, np.uint64)


def file_checksum(path: Path) -> str:
    """Return the xxh3-64 of a whole file as 16 hex digits.

    Raises
    ------
    MissingFileError : the file is not there.
    """
    digest = xxhash.xxh3_64()
    try:
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: lost; restore the file or pack again") from error
    return digest.hexdigest()
