"""Slices of a volume's transform by trilinear interpolation, and their adjoint.

Owns: the half grid (the transform of a real volume is Hermitian, so kx >= 0 is enough),
`extract` and `insert`, which are exact adjoints of one another. Does not own: weights, CTF and
noise (`frazil.engines`).

A half grid of a box of side D is a complex tensor (D + 2, D + 2, D/2 + 2), axes (kz, ky, kx):
kz, ky from -D/2 to D/2 + 1, kx from 0 to D/2 + 1, so that all eight neighbours of a frequency
inside the disc exist.
"""

import torch
from jaxtyping import Bool, Complex, Float, Int64
from torch import Tensor

from frazil.geometry.fourier import fft3_centred, ifft3_centred


def half_grid_shape(box_px: int) -> tuple[int, int, int]:
    """Return the shape of the half grid of a box of side box_px."""
    return box_px + 2, box_px + 2, box_px // 2 + 2


def extract(
    grid: Complex[Tensor, "Z Y X"], frequencies: Float[Tensor, "... 3"]
) -> Complex[Tensor, "..."]:
    """Return the trilinearly interpolated transform at frequencies (kx, ky, kz), |k| <= D/2.

    Frequencies with kx < 0 are read at -k and conjugated.
    """
    points, flipped = to_half_space(frequencies.reshape(-1, 3))
    index, weight = neighbours(points, grid.shape)
    values = (grid.reshape(-1)[index] * weight).sum(0)
    values = torch.where(flipped, values.conj(), values)
    return values.reshape(frequencies.shape[:-1])


def extract_many(
    lanes: Float[Tensor, "V M"], shape: torch.Size, frequencies: Float[Tensor, "... 3"]
) -> Complex[Tensor, "... L"]:
    """Return what `extract` returns of L half grids at once; its gradient is the adjoint, `insert`.

    Parameters
    ----------
    lanes : (V, 2L), at each voxel the L real parts, then the L imaginary parts.
    shape : (Z, Y, X) of the half grids.
    """
    points, flipped = to_half_space(frequencies.reshape(-1, 3))
    index, weight = neighbours(points, shape)
    values = torch.nn.functional.embedding_bag(
        index.T.contiguous(), lanes, mode="sum", per_sample_weights=weight.T.contiguous()
    )
    real, imaginary = values.chunk(2, dim=1)
    sign = 1 - 2 * flipped.to(values.dtype)
    found = torch.complex(real, imaginary * sign[:, None])
    return found.view(*frequencies.shape[:-1], -1)


def insert(
    grid: Complex[Tensor, "Z Y X"],
    frequencies: Float[Tensor, "... 3"],
    values: Complex[Tensor, "..."],
) -> None:
    """Add values at frequencies into the grid: the adjoint of `extract`, in place.

    The plane kx = 0 then holds k and -k apart; `symmetrise` joins them.
    """
    points, flipped = to_half_space(frequencies.reshape(-1, 3))
    index, weight = neighbours(points, grid.shape)
    flat = values.reshape(-1)
    flat = torch.where(flipped, flat.conj(), flat)
    spread = torch.view_as_real(flat * weight).reshape(-1, 2)
    torch.view_as_real(grid).view(-1, 2).index_add_(0, index.reshape(-1), spread)


def insert_real(
    grid: Float[Tensor, "Z Y X"],
    frequencies: Float[Tensor, "... 3"],
    values: Float[Tensor, "..."],
) -> None:
    """Add real values (weights, even in k) at frequencies into a real half grid, in place."""
    points, _ = to_half_space(frequencies.reshape(-1, 3))
    index, weight = neighbours(points, grid.shape)
    spread = values.reshape(-1) * weight
    grid.view(-1).index_add_(0, index.reshape(-1), spread.reshape(-1))


def symmetrise(grid: Complex[Tensor, "Z Y X"]) -> Complex[Tensor, "Z Y X"]:
    """Return the grid with the plane kx = 0 made Hermitian by adding the conjugate of -k.

    After `insert` this is the sum that inserting every point at k and at -k would have given.
    """
    joined = grid.clone()
    plane = grid[:-1, :-1, 0]  # kz, ky from -D/2 to D/2: flipping takes k to -k
    joined[:-1, :-1, 0] = plane + torch.flip(plane, dims=(0, 1)).conj()
    return joined


def half_grid_from_volume(volume: Float[Tensor, "D D D"]) -> Complex[Tensor, "Z Y X"]:
    """Return the half grid of a real volume; the +D/2 samples repeat the -D/2 ones (aliases)."""
    box_px = volume.shape[-1]
    transform = fft3_centred(volume)
    radius = box_px // 2
    wrap = torch.arange(-radius, radius + 2) % box_px  # frequency -> index of an FFT
    index = (wrap + radius) % box_px
    columns = (torch.arange(0, radius + 2) + radius) % box_px
    return transform[index][:, index][:, :, columns].contiguous()


def volume_from_half_grid(grid: Complex[Tensor, "Z Y X"]) -> Float[Tensor, "D D D"]:
    """Return the real volume of a half grid (Hermitian plane kx = 0); Nyquist planes dropped."""
    box_px = grid.shape[0] - 2
    radius = box_px // 2
    full = grid.new_zeros((box_px, box_px, box_px))
    inner = grid[1:box_px, 1:box_px, :radius]  # kz, ky in (-D/2, D/2), kx in [0, D/2)
    full[1:, 1:, radius:] = inner
    full[1:, 1:, 1 : radius + 1] = torch.flip(inner, dims=(0, 1, 2)).conj()
    return ifft3_centred(full).real


def slice_response(side_px: int) -> Tensor:
    """Return what trilinear slices multiply a volume by, (n, n, n): sinc^2 along each axis."""
    axis = torch.sinc((torch.arange(side_px) - side_px // 2) / side_px) ** 2
    return axis[:, None, None] * axis[None, :, None] * axis[None, None, :]


def to_half_space(
    points: Float[Tensor, "M 3"],
) -> tuple[Float[Tensor, "M 3"], Bool[Tensor, " M"]]:
    """Return points with kx >= 0, and which of them were mirrored through the origin."""
    flipped = points[:, 0] < 0
    return torch.where(flipped[:, None], -points, points), flipped


def neighbours(
    points: Float[Tensor, "M 3"], shape: torch.Size
) -> tuple[Int64[Tensor, "8 M"], Float[Tensor, "8 M"]]:
    """Return flat grid indices and trilinear weights of the eight neighbours of each point.

    Rounding may put |k| = D/2 just below -D/2, where the grid ends: such points keep the outermost
    cell, and their weights go on linearly.
    """
    radius = shape[2] - 2
    floor = torch.floor(points).clamp(-radius, radius)
    fraction = points - floor  # (M, 3)
    x, y, z = floor.long().unbind(1)
    corner = ((z + radius) * shape[1] + (y + radius)) * shape[2] + x
    indices, weights = [], []
    for dz in (0, 1):
        wz = fraction[:, 2] if dz else 1 - fraction[:, 2]
        for dy in (0, 1):
            wy = fraction[:, 1] if dy else 1 - fraction[:, 1]
            for dx in (0, 1):
                wx = fraction[:, 0] if dx else 1 - fraction[:, 0]
                indices.append(corner + (dz * shape[1] + dy) * shape[2] + dx)
                weights.append(wz * wy * wx)
    return torch.stack(indices), torch.stack(weights)
