"""What an image costs a GPU in a pass: arithmetic, and bytes in its memory.

Owns: the counts for `device_pass`. Does not own: times, which depend on the device.

Counted is what grows with the number of volumes: every element that the gather, the matrix products
and the insertion read or write, once each time, and two operations for a multiplication with its
addition. A neighbour's row counts in full, whether a cache holds it or not. CTF, shifts and the
small matrices of the posterior are left out.
"""

from dataclasses import dataclass

from frazil.engines.pca.sums import lane_count

_CORNERS = 8
_FLOAT, _INDEX = 4, 8


@dataclass(frozen=True)
class Work:
    """Operations, and bytes read or written."""

    operations: int
    moved_bytes: int


def expectation_work(volumes: int, coefficients: int) -> Work:
    """Return the work of the E-step on an image of P coefficients with L volumes."""
    lanes, columns = 2 * volumes, volumes + 1
    # 1. The weighted sum of eight rows of 2 L lanes.
    operations = 2 * _CORNERS * lanes
    moved = _FLOAT * _CORNERS * lanes + _CORNERS * 2 * (_INDEX + _FLOAT)
    # 2. It is written, and read again into the design, whose last column is the data.
    moved += _FLOAT * (2 * lanes + 2 * columns)
    # 3. The Gram matrix of the design's two rows.
    operations += 2 * 2 * columns**2
    moved += _FLOAT * 2 * columns
    return Work(coefficients * operations, coefficients * moved)


def maximisation_work(volumes: int, coefficients: int) -> Work:
    """Return what the sums of the M-step add to that."""
    columns, added = volumes + 1, lane_count(volumes)
    # 1. Right-hand sides from the design, and the residual's power from both.
    operations = 2 * 2 * columns**2 + 2 * 2 * columns
    moved = _FLOAT * 2 * columns * (2 + 2 + 2)
    # 2. What a coefficient adds to a voxel: M numbers.
    operations += added
    moved += _FLOAT * (2 * volumes + added)
    # 3. Eight times: read, scaled and written, read again and added to a row that is read and
    #    written.
    operations += 2 * _CORNERS * added
    moved += _FLOAT * _CORNERS * 5 * added
    return Work(coefficients * operations, coefficients * moved)


def sent_bytes(coefficients: int, code_bytes: int = 1) -> int:
    """Return what is sent to the device for an image: codes, scale, rotation, shift and CTF."""
    return 2 * coefficients * code_bytes + _FLOAT * (1 + 9 + 2 + 8)


def work_line(volumes: int, coefficients: int, code_bytes: int = 1) -> str:
    """Return the work of an image as a line for people."""
    e, m = expectation_work(volumes, coefficients), maximisation_work(volumes, coefficients)
    return (
        f"{sent_bytes(coefficients, code_bytes) / 1e3:.1f} kB sent; E-step "
        f"{e.operations / 1e6:.1f} million operations and {e.moved_bytes / 1e6:.1f} MB moved, "
        f"M-step {m.operations / 1e6:.1f} million and {m.moved_bytes / 1e6:.1f} MB"
    )
