"""Compiled loops over images and voxels: extract, insert, solve.

Owns: trilinear slices of many volumes at once, their adjoint, small symmetric solves, and the
moments of a mixture. Does not own: what is extracted and inserted (`expectation`, `sums`).
`tests/reference` has slow twins.

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

from frazil.loader.compiled import Kernel, compiled

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
    "error_model": "numpy",
}
U = np.uintp
F = np.float32


def _compiled(function: Callable[..., Any]) -> Kernel:
    return compiled(function, **_OPTIONS)


def _inline(function: Callable[..., Any]) -> Any:
    """Return a function that is compiled into those that call it."""
    return numba.njit(inline="always", **_OPTIONS)(function)


def _point(r, kx, ky):
    """Return R^T (kx, ky, 0) with x >= 0, and -1 where that took k to -k."""
    x = r[0, 0] * kx + r[1, 0] * ky
    y = r[0, 1] * kx + r[1, 1] * ky
    z = r[0, 2] * kx + r[1, 2] * ky
    if x < F(0.0):
        return -x, -y, -z, F(-1.0)
    return x, y, z, F(1.0)


def _corner(x, y, z, shape, lanes):
    """Return the flat index of the first neighbour of a point, and its three fractions."""
    radius = F(shape[2] - 2)
    y, z = y + radius, z + radius
    ix, iy, iz = np.int64(x), np.int64(y), np.int64(z)
    index = U(((iz * shape[1] + iy) * shape[2] + ix) * lanes)
    return index, x - F(ix), y - F(iy), z - F(iz)


def _weights(ax, ay, az, scale):
    """Return the trilinear weights of the eight neighbours, x fastest, times a scale."""
    bx, by, bz = F(1.0) - ax, F(1.0) - ay, (F(1.0) - az) * scale
    az = az * scale
    w0, w1, w2, w3 = bz * by, bz * ay, az * by, az * ay
    return w0 * bx, w0 * ax, w1 * bx, w1 * ax, w2 * bx, w2 * ax, w3 * bx, w3 * ax


def _solve_in_place(matrix, right):
    """Solve matrix x = right by Cholesky: x replaces right, the factor the lower triangle."""
    size = matrix.shape[0]
    for i in range(size):
        for j in range(i + 1):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = np.sqrt(value) if i == j else value / matrix[j, j]
    _substitute(matrix, right)


def _substitute(factor, right):
    """Solve L L^T x = right, given L in the lower triangle: x replaces right."""
    size = factor.shape[0]
    for part in range(right.shape[1]):
        for i in range(size):
            for k in range(i):
                right[i, part] -= factor[i, k] * right[k, part]
            right[i, part] /= factor[i, i]
        for i in range(size - 1, -1, -1):
            for k in range(i + 1, size):
                right[i, part] -= factor[k, i] * right[k, part]
            right[i, part] /= factor[i, i]


def _joined_likelihood(precision, product, model, c, factor, found):
    """Return the log of a component times a likelihood, integrated; posterior mean and factor."""
    K = product.shape[0]
    for i in range(K):
        found[i, 0] = product[i] + model[1][c, i]
        for j in range(i + 1):
            factor[i, j] = precision[i, j] + model[0][c, i, j]
        factor[i, i] -= 1.0
    _solve_in_place(factor, found)
    log = model[2][c]
    for i in range(K):
        log += 0.5 * (product[i] + model[1][c, i]) * found[i, 0] - np.log(factor[i, i])
    return log


def _add_moments(sums, c, r, factor, found, covariance):
    """Add r, r E[z], r E[z z^T] of a posterior, given mean and factor of its precision."""
    K = found.shape[0]
    covariance[:] = 0.0
    for i in range(K):
        covariance[i, i] = 1.0
    _substitute(factor, covariance)
    sums[0][c] += r
    for i in range(K):
        sums[1][c, i] += r * found[i, 0]
        for j in range(K):
            sums[2][c, i, j] += r * (covariance[i, j] + found[i, 0] * found[j, 0])


_substitute = _inline(_substitute)
_solve_in_place = _inline(_solve_in_place)
_joined_likelihood, _add_moments = _inline(_joined_likelihood), _inline(_add_moments)
_point, _corner, _weights = _inline(_point), _inline(_corner), _inline(_weights)


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
    half = U(volumes + 1)

    def extract(grid, shape, rotations, kx, ky, factor, data, out):
        row, plane = U(shape[2]) * L2, U(shape[1] * shape[2]) * L2
        values = np.empty(2 * volumes, np.float32)
        flat = out.reshape(-1)
        for b in range(rotations.shape[0]):
            for p in range(kx.shape[0]):
                x, y, z, sign = _point(rotations[b], kx[p], ky[p])
                i0, ax, ay, az = _corner(x, y, z, shape, 2 * volumes)
                i1, i2, i3 = i0 + row, i0 + plane, i0 + plane + row
                w0, w1, w2, w3, w4, w5, w6, w7 = _weights(ax, ay, az, factor[b, p])
                for lane in range(L2):
                    at = U(lane)
                    values[at] = (
                        grid[i0 + at] * w0
                        + grid[i0 + L2 + at] * w1
                        + grid[i1 + at] * w2
                        + grid[i1 + L2 + at] * w3
                        + grid[i2 + at] * w4
                        + grid[i2 + L2 + at] * w5
                        + grid[i3 + at] * w6
                        + grid[i3 + L2 + at] * w7
                    )
                start = U(b * kx.shape[0] + p) * (half + half)
                for lane in range(L):
                    at = U(lane)
                    flat[start + at] = values[at]
                    flat[start + half + at] = values[L + at]
                flat[start + L] = data[b, p, 0]
                flat[start + half + L] = sign * data[b, p, 1]

    return _compiled(extract)


@lru_cache(maxsize=8)
def insert_kernel(volumes: int, weights: int | None = None) -> Kernel:
    """Return insert(sums, shape, rotations, kx, ky, factor, moments, values) for L volumes.

    It adds B images to the normal equations. Arguments as in `extract_kernel`, and

    sums (V * M,) float32, M = W + 2L: the upper triangle of the matrix by rows, then the
    right-hand side, real and imaginary parts; moments (B, W) float32, E[z z^T], W = L(L+1)/2
    unless `weights` gives it (1: all right-hand sides have one matrix of one row); values
    (B, P, 2(L+1)) float32, of which the first L columns are inserted, times factor.
    """
    pairs = U(volumes * (volumes + 1) // 2 if weights is None else weights)
    L, half = U(volumes), U(volumes + 1)
    M = pairs + L + L
    lanes = int(M)

    def spread(sums, start, weight, added):
        for lane in range(M):
            sums[start + U(lane)] += weight * added[U(lane)]

    spread = _inline(spread)

    def insert(sums, shape, rotations, kx, ky, factor, moments, values):
        row, plane = U(shape[2]) * M, U(shape[1] * shape[2]) * M
        added = np.empty(lanes, np.float32)
        flat = values.reshape(-1)
        for b in range(rotations.shape[0]):
            for p in range(kx.shape[0]):
                f = factor[b, p]
                start = U(b * kx.shape[0] + p) * (half + half)
                for lane in range(pairs):
                    added[U(lane)] = f * f * moments[b, lane]
                for lane in range(L):
                    added[pairs + U(lane)] = f * flat[start + U(lane)]
                    added[pairs + L + U(lane)] = f * flat[start + half + U(lane)]
                x, y, z, _ = _point(rotations[b], kx[p], ky[p])
                i0, ax, ay, az = _corner(x, y, z, shape, lanes)
                w0, w1, w2, w3, w4, w5, w6, w7 = _weights(ax, ay, az, F(1.0))
                spread(sums, i0, w0, added)
                spread(sums, i0 + M, w1, added)
                spread(sums, i0 + row, w2, added)
                spread(sums, i0 + row + M, w3, added)
                spread(sums, i0 + plane, w4, added)
                spread(sums, i0 + plane + M, w5, added)
                spread(sums, i0 + plane + row, w6, added)
                spread(sums, i0 + plane + row + M, w7, added)

    return _compiled(insert)


@lru_cache(maxsize=8)
def residual_kernel(volumes: int) -> Kernel:
    """Return residual(design, values, shell, power) for L volumes.

    power (B, S) float64 gets E|whitened residual|^2 of each shell added: with the design A and
    data y, and values = [y E[z]^T - A E[z z^T] | y - A E[z]] of `expectation.residual_weights`,
    E|y - A z|^2 is the sum over y (y - A E[z]) minus that over A (y E[z]^T - A E[z z^T]).

    design, values (B, P, 2(L+1)) float32; shell (P,) int64.
    """

    def residual(design, values, shell, power):
        for b in range(design.shape[0]):
            for p in range(shell.shape[0]):
                a, v = design[b, p], values[b, p]
                found = a[volumes] * v[volumes] + a[2 * volumes + 1] * v[2 * volumes + 1]
                for lane in range(volumes):
                    found -= a[lane] * v[lane] + a[volumes + 1 + lane] * v[volumes + 1 + lane]
                power[b, shell[p]] += found

    return _compiled(residual)


@lru_cache(maxsize=8)
def solve_kernel(volumes: int) -> Kernel:
    """Return solve(sums, ridge, shell, former, out) for L volumes.

    For each voxel v with shell[v] >= 0 it writes former + (A + R)^-1 (b - R former), with A and b
    from `insert_kernel`'s sums and R = diag(ridge[:, shell[v]]); elsewhere 0.

    sums (V * M,) float32 or float64; ridge (L, S) float64, > 0; shell (V,) int64; former and out
    (V * 2L,) float32.
    """
    size, pairs = volumes, volumes * (volumes + 1) // 2

    def solve(sums, ridge, shell, former, out):
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
            _solve_in_place(matrix, right)
            for part in range(2):
                for i in range(size):
                    place = own + part * size + i
                    out[place] = former[place] + F(right[i, part])

    return _compiled(solve)


@lru_cache(maxsize=8)
def mixture_kernel(zdim: int) -> Kernel:
    """Return mixture(precision, product, model, share, mean, evidence, sums) for K = zdim.

    It adds N images, whose likelihoods are exp(-z^T G z / 2 + b^T z), to the moments of a mixture
    of M Gaussians (E-step). Component c has the constant log pi + log|Q| / 2 - mu^T Q mu / 2.

    precision (N, K, K), G + 1; product (N, K), b; model (Q (M, K, K), Q mu (M, K), constant (M,));
    share (N, M) gets the responsibilities, mean (N, K) the posterior mean, evidence (N,) the log of
    the likelihood's integral; sums ((M,), (M, K), (M, K, K)) get sums of r, r E[z] and r E[z z^T]
    added. All but `precision` (also float32) and `share` float64.
    """
    K = zdim

    def mixture(precision, product, model, share, mean, evidence, sums):
        count = model[2].shape[0]
        factor = np.empty((count, K, K))
        found = np.empty((count, K, 1))
        covariance = np.empty((K, K))
        log = np.empty(count)
        for n in range(precision.shape[0]):
            for c in range(count):
                log[c] = _joined_likelihood(precision[n], product[n], model, c, factor[c], found[c])
            evidence[n] = log.max() + np.log(np.exp(log - log.max()).sum())
            mean[n] = 0.0
            for c in range(count):
                r = np.exp(log[c] - evidence[n])
                share[n, c] = r
                mean[n] += r * found[c, :, 0]
                if r > 1e-14:
                    _add_moments(sums, c, r, factor[c], found[c], covariance)

    return _compiled(mixture)
