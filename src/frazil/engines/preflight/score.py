"""How well a hypothesis about the particles predicts images that its map has not seen.

Owns: half maps under a hypothesis, their FSC, and the held-out log-likelihood of each image. Does
not own: which hypotheses there are (`hypotheses`) or what follows (`search`).

Coefficients are whitened, so an image y with prediction x has log p = -sum |y - x|^2 over the half
plane. The gain of an image is log p(y | x) - log p(y | 0) = sum 2 Re(y* x) - |x|^2, with x the
slice of the map of the OTHER half set times the transfer. Each shell of the predictions has one
scale, fitted over all images (and never negative), so neither the units of a transfer nor the
regularisation of the maps favours a hypothesis. A map of noise gains nothing.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry, to_lanes
from frazil.engines.pca.images import transfer
from frazil.engines.pca.kernels import extract_kernel, insert_kernel
from frazil.engines.preflight.hypotheses import Hypothesis
from frazil.engines.preflight.sample import Sample
from frazil.geometry.shifts import shift_phase
from frazil.geometry.slicing import symmetrise

_CHUNK_ROWS = 256
# FSC is taken to be within this range where it decides the damping of a map.
_FSC_RANGE = (0.02, 0.98)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample under a hypothesis: what the loops take.

    `factor` (n, P) float32 is the transfer; `data` (n, P) complex64 is centred; `rotations` are
    (n, 3, 3) float32.
    """

    hypothesis: Hypothesis
    factor: Tensor
    data: Tensor
    rotations: Tensor

    @classmethod
    def of(
        cls, sample: Sample, hypothesis: Hypothesis, former: "Prepared | None" = None
    ) -> "Prepared":
        """Return the sample under a hypothesis; parts that `former` has in common are taken."""
        old = None if former is None else former.hypothesis
        if former is not None and old is not None and hypothesis.same_transfer(old):
            factor = former.factor
        else:
            factor = _factor(sample, hypothesis)
        if former is not None and old is not None and hypothesis.same_shift(old):
            data = former.data
        else:
            data = _centred(sample, hypothesis)
        return cls(hypothesis, factor, data, _rotations(sample, hypothesis))


@dataclass(frozen=True, eq=False)
class Score:
    """What a hypothesis explains.

    Attributes
    ----------
    gain : (n,) float64, held-out log-likelihood of each image above that of no particle at all.
    curve : (S,) FSC of the half maps' transforms, by shell; shell 0 is 1.
    numerator, weight : (2, Z, Y, X) sums of the half sets, made Hermitian.
    """

    gain: NDArray[np.float64]
    curve: NDArray[np.float64]
    numerator: Tensor
    weight: Tensor

    @property
    def total(self) -> float:
        """Sum of the gains."""
        return float(self.gain.sum())


def score(sample: Sample, prepared: Prepared) -> Score:
    """Return the score of a hypothesis over a sample; the half sets work on a thread each."""
    geometry = sample.geometry
    with ThreadPoolExecutor(2) as pool:
        halves = [np.flatnonzero(sample.half == number) for number in (0, 1)]
        sums = list(pool.map(lambda part: half_sums(prepared, part, geometry), halves))
        numerator = torch.stack([found[0] for found in sums])
        weight = torch.stack([found[1] for found in sums])
        grids, curve = damped_maps(numerator, weight, geometry)

        def products(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return _products(prepared, grids[1 - number], halves[number], geometry)

        found = list(pool.map(products, (0, 1)))
    cross = np.concatenate([part[0] for part in found])  # (n, S - 1)
    power = np.concatenate([part[1] for part in found])
    total = power.sum(0)
    scale = np.maximum(cross.sum(0), 0) / np.where(total > 0, total, 1)
    gain = np.empty(len(sample))
    gain[np.concatenate(halves)] = 2 * cross @ scale - power @ scale**2
    return Score(gain, curve, numerator, weight)


def half_sums(
    prepared: Prepared, part: NDArray[np.int64], geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """Return the sums (Z, Y, X) of transfer times coefficient, complex64, and of transfer^2."""
    shape = tuple(geometry.shape.tolist())
    sums = np.zeros(3 * int(np.prod(shape)), np.float32)
    insert = insert_kernel(1, 1)
    kx = torch.from_numpy(geometry.kx)
    ky = torch.from_numpy(geometry.ky)
    for start in range(0, len(part), _CHUNK_ROWS):
        rows = torch.from_numpy(part[start : start + _CHUNK_ROWS])
        rotations, data = prepared.rotations[rows], prepared.data[rows]
        # A slice point with kx < 0 is inserted at -k, as the conjugate.
        along = rotations[:, 0, 0, None] * kx + rotations[:, 1, 0, None] * ky
        values = torch.zeros((*data.shape, 4))
        values[..., 0] = data.real
        values[..., 2] = torch.where(along < 0, -data.imag, data.imag)
        insert(
            sums,
            geometry.shape,
            rotations.numpy(),
            geometry.kx,
            geometry.ky,
            prepared.factor[rows].numpy(),
            np.ones((len(rows), 1), np.float32),
            values.numpy(),
        )
    lanes = torch.from_numpy(sums).view(*shape, 3)
    numerator = symmetrise(torch.complex(lanes[..., 1], lanes[..., 2]))
    return numerator, symmetrise(lanes[..., 0].to(torch.complex64)).real


def damped_maps(
    numerator: Tensor, weight: Tensor, geometry: Geometry
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the Wiener-filtered half maps (2, Z, Y, X), and the FSC (S,) that decides how much.

    A map is N / (W + mean W of the shell (1 - FSC) / FSC).
    """
    curve = grid_fsc(numerator, weight, geometry)
    low, high = _FSC_RANGE
    bounded = np.clip(curve, low, high)
    return _divided(numerator, weight, (1 - bounded) / bounded, geometry), curve


def grid_fsc(numerator: Tensor, weight: Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Return the FSC (S,) of two half maps from their sums; shell 0 is 1."""
    shells = geometry.box_px // 2 + 1
    maps = _divided(numerator, weight, np.full(shells, 0.5), geometry)
    a, b = maps.reshape(2, -1)
    inside = geometry.voxel_shell >= 0
    shell, copies = geometry.voxel_shell[inside], geometry.voxel_copies[inside]

    def over_shells(values: Tensor) -> NDArray[np.float64]:
        weights = copies * values.numpy()[inside]
        return np.bincount(shell, weights, minlength=shells).astype(np.float64)

    power = over_shells(a.abs() ** 2) * over_shells(b.abs() ** 2)
    curve = over_shells((a * b.conj()).real) / np.sqrt(np.where(power > 0, power, 1.0))
    curve[0] = 1.0
    return curve


def _divided(
    numerator: Tensor, weight: Tensor, damping: NDArray[np.float64], geometry: Geometry
) -> Tensor:
    """Return N / (W + damping (S,) times the shell's mean of W), 0 outside |k| <= d/2."""
    shell = geometry.voxel_shell
    out = torch.zeros_like(numerator)
    for number in range(len(numerator)):
        flat = weight[number].reshape(-1).numpy()
        ridge = damping * geometry.shell_means(flat)
        below = torch.from_numpy(np.where(shell >= 0, flat + ridge[shell], 0).astype(np.float32))
        below = below.view(weight.shape[1:])
        out[number] = torch.where(below > 0, numerator[number] / below.clamp(min=1e-20), 0)
    return out


def _products(
    prepared: Prepared, grid: Tensor, part: NDArray[np.int64], geometry: Geometry
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Re(y* x) and |x|^2 of images with their predictions, by shell from 1, (n, S - 1)."""
    lanes, extract = to_lanes(grid[None]), extract_kernel(1)
    order = np.argsort(geometry.shell, kind="stable")
    edges = np.cumsum(np.bincount(geometry.shell))[:-1]
    kx, ky = geometry.kx[order], geometry.ky[order]
    cross, power = (np.empty((len(part), len(edges))) for _ in range(2))
    picked = torch.from_numpy(order)
    for start in range(0, len(part), _CHUNK_ROWS):
        rows = torch.from_numpy(part[start : start + _CHUNK_ROWS])
        data = torch.view_as_real(prepared.data[rows][:, picked]).numpy()
        factor = prepared.factor[rows][:, picked].numpy()
        out = np.empty((len(rows), len(order), 4), np.float32)
        extract(lanes, geometry.shape, prepared.rotations[rows].numpy(), kx, ky, factor, data, out)
        here = slice(start, start + len(rows))
        products = out[..., 0] * out[..., 1] + out[..., 2] * out[..., 3]
        cross[here] = np.add.reduceat(products, edges, axis=1)
        power[here] = np.add.reduceat(out[..., 0] ** 2 + out[..., 2] ** 2, edges, axis=1)
    return cross, power


def _factor(sample: Sample, hypothesis: Hypothesis) -> Tensor:
    """Return the transfer (n, P) of a hypothesis, negative at low frequency as the CTF is.

    Particles without a CTF are taken as they are: back-projection and training do so, too.
    """
    if sample.ctf is None:
        return torch.ones(sample.data.shape)
    if hypothesis.transfer == "none":
        return -torch.ones(sample.data.shape)
    disc, parameters = sample.geometry.disc, sample.ctf.clone()
    parameters[:, 0] *= hypothesis.pixel_scale
    if hypothesis.other_ctf:
        parameters = parameters.roll(1, 0)
    values = transfer(parameters, disc.kx, disc.ky, disc.box_px)
    if hypothesis.transfer == "flipped":
        return -values.abs()
    return -(values**2) if hypothesis.transfer == "premultiplied" else values


def _centred(sample: Sample, hypothesis: Hypothesis) -> Tensor:
    """Return the data (n, P) moved by the shifts of a hypothesis."""
    matrix = torch.tensor(hypothesis.shift, dtype=torch.float32)
    shifts = sample.poses_of(hypothesis.rows)[1] @ matrix.T
    if not bool(shifts.any()):
        return sample.data
    disc = sample.geometry.disc
    moved = torch.empty_like(sample.data)
    for part in torch.split(torch.arange(len(sample)), _CHUNK_ROWS):
        moved[part] = sample.data[part] * shift_phase(disc.kx, disc.ky, shifts[part], disc.box_px)
    return moved


def _rotations(sample: Sample, hypothesis: Hypothesis) -> Tensor:
    """Return the rotations (n, 3, 3) of a hypothesis."""
    found = sample.poses_of(hypothesis.rows)[0]
    if hypothesis.rows == "shuffled":
        found = found.roll(1, 0)
    if hypothesis.transposed:
        found = found.transpose(1, 2)
    return found.contiguous()
