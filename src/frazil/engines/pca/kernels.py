"""Compiled loops over images and voxels: extract, insert, solve.

Owns: trilinear slices of many volumes at once, their adjoint, and small symmetric solves. Does not
own: what is extracted and inserted (`expectation`, `sums`). `tests/reference` has slow twins.

L volumes (the mean first) are one flat float32 array, lanes innermost: at each voxel of the half
grid of `geometry.slicing` L real parts, then L imaginary parts. All indices are unsigned machine
words and lane counts are constants, without which the compiler does not vectorise. Coordinates
are made positive, so truncation is floor.

Each function is made for one number of lanes, and compiled when it is first called (seconds).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np

Kernel = Callable[..., None]

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
    "error_model": "numpy",
}
U = np.uintp
F = np.float32


def _compiled(function: Callable[..., Any]) -> Kernel:
    """Return the function compiled; kept on disk where a cache folder can be written."""
    try:
        kernel: Kernel = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        kernel = numba.njit(**_OPTIONS)(function)
    return kernel


def _corner(x, y, z, radius, n1, n2, lanes):  # type: ignore[no-untyped-def]
    """Return flat index of the first neighbour of a point with x >= 0, and its fractions."""
    y, z = y + radius, z + radius
    ix, iy, iz = np.int64(x), np.int64(y), np.int64(z)
    index = U(((iz * n1 + iy) * n2 + ix) * lanes)
    return index, x - F(ix), y - F(iy), z - F(iz)


_corner = numba.njit(inline="always", **_OPTIONS)(_corner)


@lru_cache(maxsize=8)
def extract_kernel(volumes: int) -> Kernel:
    """Return extract(grid, shape, rotations, kx, ky, factor, data, out) for L volumes.

    It writes the whitened design of B images, with the whitened data as an (L+1)-th column.

    grid (V * 2L,) float32; shape (3,) int64 of the half grid; rotations (B, 3, 3) float32; kx, ky
    (P,) float32 in voxels of the grid; factor (B, P) float32, CTF over noise deviation; data
    (B, P, 2) float32, coefficient over noise deviation, real and imaginary; out (B, P, 2(L+1))
    float32: L real parts and that of the data, then the imaginary ones. A slice point with kx < 0
    is read at -k, and then both design and data are conjugates.
    """
    L, L2 = U(volumes), U(2 * volumes)
    width = U(2 * volumes + 2)

    def extract(grid, shape, rotations, kx, ky, factor, data, out):  # type: ignore[no-untyped-def]
        n1, n2 = shape[1], shape[2]
        radius = F(n2 - 2)
        row, plane = U(n2) * L2, U(n1 * n2) * L2
        values = np.empty(2 * volumes, np.float32)
        flat = out.reshape(-1)
        for b in range(rotations.shape[0]):
            r = rotations[b]
            r00, r01, r02, r10, r11, r12 = r[0, 0], r[0, 1], r[0, 2], r[1, 0], r[1, 1], r[1, 2]
            for p in range(kx.shape[0]):
                x = r00 * kx[p] + r10 * ky[p]
                y = r01 * kx[p] + r11 * ky[p]
                z = r02 * kx[p] + r12 * ky[p]
                sign = F(1.0)
                if x < F(0.0):
                    x, y, z, sign = -x, -y, -z, F(-1.0)
                i0, ax, ay, az = _corner(x, y, z, radius, n1, n2, 2 * volumes)
                i1, i2, i3 = i0 + row, i0 + plane, i0 + plane + row
                f = factor[b, p]
                bx, by, bz = F(1.0) - ax, (F(1.0) - ay), (F(1.0) - az) * f
                az = az * f
                w0, w1, w2, w3 = bz * by * bx, bz * by * ax, bz * ay * bx, bz * ay * ax
                w4, w5, w6, w7 = az * by * bx, az * by * ax, az * ay * bx, az * ay * ax
                for lane in range(L2):
                    l = U(lane)
                    values[l] = (
                        grid[i0 + l] * w0
                        + grid[i0 + L2 + l] * w1
                        + grid[i1 + l] * w2
                        + grid[i1 + L2 + l] * w3
                        + grid[i2 + l] * w4
                        + grid[i2 + L2 + l] * w5
                        + grid[i3 + l] * w6
                        + grid[i3 + L2 + l] * w7
                    )
                j = U(b * kx.shape[0] + p) * width
                for lane in range(L):
                    l = U(lane)
                    flat[j + l] = values[l]
                    flat[j + L + U(1) + l] = values[L + l]
                flat[j + L] = data[b, p, 0]
                flat[j + L2 + U(1)] = sign * data[b, p, 1]

    return _compiled(extract)


@lru_cache(maxsize=8)
def insert_kernel(volumes: int) -> Kernel:
    """Return insert(sums, shape, rotations, kx, ky, factor, moments, values, ...) for L volumes.

    It adds B images to the normal equations. Arguments as in `extract_kernel`, and

    sums (V * M,) float32, M = L(L+1)/2 + 2L: the upper triangle of the matrix by rows, then the
    right-hand side, real and imaginary parts; moments (B, L(L+1)/2) float32, E[z z^T]; design and
    values (B, P, 2(L+1)) float32: `extract`'s output A, and A times [-E[z z^T] | -mean; mean |
    1], whose first L columns are inserted (times factor) and whose last is the residual; shell
    (P,) int64; power (B, S) float64, to which E|whitened residual|^2 of each shell is added.
    """
    L, pairs, half = U(volumes), U(volumes * (volumes + 1) // 2), U(volumes + 1)
    M = pairs + L + L
    width = U(2 * volumes + 2)

    def insert(  # type: ignore[no-untyped-def]
        sums, shape, rotations, kx, ky, factor, moments, design, values, shell, power
    ):
        n1, n2 = shape[1], shape[2]
        radius = F(n2 - 2)
        row, plane = U(n2) * M, U(n1 * n2) * M
        added = np.empty(volumes * (volumes + 1) // 2 + 2 * volumes, np.float32)
        flat, matrix = values.reshape(-1), design.reshape(-1)
        for b in range(rotations.shape[0]):
            r = rotations[b]
            r00, r01, r02, r10, r11, r12 = r[0, 0], r[0, 1], r[0, 2], r[1, 0], r[1, 1], r[1, 2]
            for p in range(kx.shape[0]):
                x = r00 * kx[p] + r10 * ky[p]
                y = r01 * kx[p] + r11 * ky[p]
                z = r02 * kx[p] + r12 * ky[p]
                if x < F(0.0):
                    x, y, z = -x, -y, -z
                j = U(b * kx.shape[0] + p) * width
                f = factor[b, p]
                square = f * f
                for lane in range(pairs):
                    added[U(lane)] = square * moments[b, lane]
                found = F(0.0)
                for lane in range(L):
                    l = U(lane)
                    re, im = flat[j + l], flat[j + half + l]
                    found -= matrix[j + l] * re + matrix[j + half + l] * im
                    added[pairs + l] = f * re
                    added[pairs + L + l] = f * im
                found += matrix[j + L] * flat[j + L] + matrix[j + half + L] * flat[j + half + L]
                power[b, shell[p]] += found
                i0, ax, ay, az = _corner(x, y, z, radius, n1, n2, M)
                i1, i2, i3 = i0 + row, i0 + plane, i0 + plane + row
                bx, by, bz = F(1.0) - ax, F(1.0) - ay, F(1.0) - az
                w0, w1, w2, w3 = bz * by * bx, bz * by * ax, bz * ay * bx, bz * ay * ax
                w4, w5, w6, w7 = az * by * bx, az * by * ax, az * ay * bx, az * ay * ax
                for lane in range(M):
                    sums[i0 + U(lane)] += w0 * added[U(lane)]
                for lane in range(M):
                    sums[i0 + M + U(lane)] += w1 * added[U(lane)]
                for lane in range(M):
                    sums[i1 + U(lane)] += w2 * added[U(lane)]
                for lane in range(M):
                    sums[i1 + M + U(lane)] += w3 * added[U(lane)]
                for lane in range(M):
                    sums[i2 + U(lane)] += w4 * added[U(lane)]
                for lane in range(M):
                    sums[i2 + M + U(lane)] += w5 * added[U(lane)]
                for lane in range(M):
                    sums[i3 + U(lane)] += w6 * added[U(lane)]
                for lane in range(M):
                    sums[i3 + M + U(lane)] += w7 * added[U(lane)]

    return _compiled(insert)


@lru_cache(maxsize=8)
def solve_kernel(volumes: int) -> Kernel:
    """Return solve(sums, ridge, shell, former, out) for L volumes.

    For each voxel v with shell[v] >= 0 it writes former + (A + R)^-1 (b - R former), with A and b
    from `insert_kernel`'s sums and R = diag(ridge[:, shell[v]]); elsewhere 0.

    sums (V * M,) float32 or float64; ridge (L, S) float64, > 0; shell (V,) int64; former and out
    (V * 2L,) float32.
    """
    size, pairs = volumes, volumes * (volumes + 1) // 2

    def solve(sums, ridge, shell, former, out):  # type: ignore[no-untyped-def]
        matrix = np.zeros((size, size))
        right = np.zeros((size, 2))
        for v in range(shell.shape[0]):
            if shell[v] < 0:
                out[v * 2 * size : (v + 1) * 2 * size] = F(0.0)
                continue
            start, own = v * (pairs + 2 * size), v * 2 * size
            at = start
            for i in range(size):
                for j in range(i, size):
                    matrix[j, i] = sums[at]
                    at += 1
            for i in range(size):
                weight = ridge[i, shell[v]]
                matrix[i, i] += weight
                for part in range(2):
                    now = former[own + part * size + i]
                    right[i, part] = sums[start + pairs + part * size + i] - weight * now
            # Cholesky: matrix = C C^T in its lower triangle; then both substitutions.
            for i in range(size):
                for j in range(i + 1):
                    value = matrix[i, j]
                    for k in range(j):
                        value -= matrix[i, k] * matrix[j, k]
                    matrix[i, j] = np.sqrt(value) if i == j else value / matrix[j, j]
            for part in range(2):
                for i in range(size):
                    for k in range(i):
                        right[i, part] -= matrix[i, k] * right[k, part]
                    right[i, part] /= matrix[i, i]
                for i in range(size - 1, -1, -1):
                    for k in range(i + 1, size):
                        right[i, part] -= matrix[k, i] * right[k, part]
                    right[i, part] /= matrix[i, i]
                    place = own + part * size + i
                    out[place] = former[place] + F(right[i, part])

    return _compiled(solve)
