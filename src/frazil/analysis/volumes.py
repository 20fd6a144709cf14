"""Volumes of a trained model at points of its latent space.

Owns: which Fourier points are decoded, the way to real space, what is done to a volume before it
is written, and the names of volume files. Does not own: the model (`frazil.models`), the file
format (`frazil.io.mrc_writer`).

Grey values are those of cryoDRGN's eval_vol: the decoder's transform times the norm's scale, whose
sum along z is the untilted image in grey values of the source, without CTF, dense parts light.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from tqdm import tqdm

from frazil.analysis.settings import VolumeSettings
from frazil.errors import InputError, MissingFileError
from frazil.io.atomic import atomic_path
from frazil.io.mrc_writer import write_volume
from frazil.store.budget import DiskNeed

# Points decoded at a time: 1024 hidden units of two layers take 256 MB.
_CHUNK_POINTS = 1 << 15
# Half width of the low-pass filter's cosine edge, in shells.
_EDGE_SHELLS = 2.0


class PointDecoder(Protocol):
    """What a model must offer: `frazil.models.vae.VAE` does."""

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Iterate over the weights; the first tells the device."""

    def decode_points(self, points: Tensor, z: Tensor) -> Tensor:
        """Return (M,) complex coefficients at points (M, 3), cycles per training box."""


@dataclass(frozen=True)
class TrainedGrid:
    """The geometry a model was trained in: box (px), pixel size (A; None unknown), norm scale."""

    box_px: int
    pixel_size_ang: float | None
    norm_scale: float

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TrainedGrid":
        """Return that of a run's config.json."""
        return cls(int(config["box_px"]), config.get("pixel_size_ang"), float(config["norm"][1]))


def evaluate_volume(
    model: PointDecoder, z: Tensor, grid: TrainedGrid, settings: VolumeSettings | None = None
) -> NDArray[np.float32]:
    """Return the volume (d, d, d) float32, axes (z, y, x), at one point z (Z,) of the latent space.

    Only the half space k_z <= 0 inside |k| <= d/2 is decoded, in batches; the other half is its
    complex conjugate. The mean grey value is 0: k = 0 is not in the data, so it is not learned.

    The low-pass filter falls from 1 to 0 as a cosine within two shells on either side of the
    resolution asked for (sharp enough to mean it, soft enough not to ring). `flip` mirrors about
    pixel d/2, so a centred structure stays centred.

    Raises
    ------
    InputError : a box that is odd or larger than the training box, a crop larger than the box, a
        low-pass filter without a pixel size.
    """
    settings = settings or VolumeSettings()
    check_volume_settings(grid, settings)
    box_px = settings.box_px or grid.box_px
    transform = _half_transform(model, z, box_px, _cutoff_shell(grid, settings))
    # Axis z is the halved one: the real inverse transform runs over it last.
    volume = torch.fft.fftshift(torch.fft.irfftn(transform, s=(box_px,) * 3, dim=(1, 2, 0)))
    volume = volume * (-grid.norm_scale if settings.invert else grid.norm_scale)
    if settings.crop_px:
        start = box_px // 2 - settings.crop_px // 2
        stop = start + settings.crop_px
        volume = volume[start:stop, start:stop, start:stop]
    if settings.flip:
        # Index i goes to 2 (d/2) - i; for an even side index 0 has no partner and stays.
        side = volume.shape[0]
        volume = volume[(2 * (side // 2) - torch.arange(side)) % side]
    return volume.contiguous().numpy()


def written_pixel_size_ang(grid: TrainedGrid, settings: VolumeSettings) -> float:
    """Return the pixel size (A) of the written volumes; 1.0 when nothing is known."""
    if settings.pixel_size_ang is not None:
        return settings.pixel_size_ang
    return (grid.pixel_size_ang or 1.0) * grid.box_px / (settings.box_px or grid.box_px)


def write_volumes(
    model: PointDecoder,
    points: NDArray[np.float32],
    grid: TrainedGrid,
    settings: VolumeSettings,
    folder: Path,
    prefix: str = "vol_",
) -> list[Path]:
    """Write one volume per latent point (K, Z) into a folder, and z_values.txt; return the paths.

    The names are PREFIX001.mrc, PREFIX002.mrc, ... from `settings.first_index` on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = volume_names(len(points), settings.first_index, prefix)
    paths = [folder / name for name in names]
    for path, z in zip(tqdm(paths, desc=folder.name, unit="vol"), points, strict=True):
        write_one_volume(model, z, grid, settings, path)
    write_z_values(folder / "z_values.txt", points)
    return paths


def write_one_volume(
    model: PointDecoder,
    z: NDArray[np.float32],
    grid: TrainedGrid,
    settings: VolumeSettings,
    path: Path,
) -> None:
    """Write the volume at one latent point (Z,) as .mrc."""
    volume = evaluate_volume(model, torch.from_numpy(z.astype(np.float32)), grid, settings)
    write_volume(path, volume, written_pixel_size_ang(grid, settings))


def volumes_need(count: int, grid: TrainedGrid, settings: VolumeSettings, folder: Path) -> DiskNeed:
    """Return the disk that `count` volumes will take in a folder."""
    side = settings.crop_px or settings.box_px or grid.box_px
    what = f"{count} volumes of {side} px"
    return DiskNeed(count * (1024 + 4 * side**3), what, folder, "a smaller -d or --crop")


def volume_names(count: int, first_index: int = 1, prefix: str = "vol_") -> list[str]:
    """Return the file names of a series; three digits, more when they are needed."""
    digits = max(3, len(str(first_index + count - 1)))
    return [f"{prefix}{i:0{digits}d}.mrc" for i in range(first_index, first_index + count)]


def write_z_values(path: Path, points: NDArray[np.float32]) -> None:
    """Write latent points (K, Z) as text, one per line; `--zfile` reads them."""
    with atomic_path(path) as temporary:
        np.savetxt(temporary, points, fmt="%.7g")


def latent_path(start: Sequence[float], end: Sequence[float], count: int) -> NDArray[np.float32]:
    """Return (n, Z) points evenly spaced from start to end, both included.

    Raises
    ------
    InputError : start and end differ in length, or count < 2.
    """
    if len(start) != len(end):
        raise InputError(
            f"--z-start has {len(start)} values, --z-end {len(end)}; give the same number"
        )
    if count < 2:
        raise InputError(f"-n {count}: a path needs at least 2 points")
    return np.linspace(start, end, count).astype(np.float32)


def read_latent_points(path: Path) -> NDArray[np.float32]:
    """Return (K, Z) latent points of a text file, one per line.

    Raises
    ------
    MissingFileError : no such file.
    InputError : the file is not a table of numbers, or is empty.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; a text file of latent points is wanted")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.partition("#")[0].strip() for line in lines):
        raise InputError(f"{path}: holds no latent points; one per line is wanted")
    try:
        return np.loadtxt(lines, dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers ({error})") from error


def check_latent_points(points: NDArray[np.float32], zdim: int, origin: str) -> None:
    """Raise InputError unless the points are (K, zdim) finite numbers, K >= 1."""
    if points.ndim != 2 or points.shape[1] != zdim or not len(points):
        found = points.shape[1] if points.ndim == 2 else points.shape
        raise InputError(f"{origin}: {found} values per point, the model has zdim {zdim}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise InputError(f"{origin}: row {bad[0]} (0-based) is not finite")


def check_volume_settings(grid: TrainedGrid, settings: VolumeSettings) -> None:
    """Raise InputError when `evaluate_volume` would, before anything is computed."""
    box_px = settings.box_px or grid.box_px
    if box_px % 2 or box_px > grid.box_px:
        raise InputError(
            f"-d {box_px}: an even number of pixels up to the training box, {grid.box_px}, is "
            "wanted"
        )
    if settings.crop_px and settings.crop_px > box_px:
        raise InputError(f"--crop {settings.crop_px}: larger than the volume's box, {box_px} px")
    _cutoff_shell(grid, settings)


def _half_transform(
    model: PointDecoder, z: Tensor, box_px: int, cutoff_shell: float | None
) -> Tensor:
    """Return the transform (D/2+1, D, D) complex64 at kz >= 0, all axes in FFT order."""
    points = _half_space_points(box_px, cutoff_shell)
    values = torch.empty(len(points), dtype=torch.complex64)
    device = next(iter(model.parameters())).device
    z = z.to(device)
    with torch.inference_mode():
        for start in range(0, len(points), _CHUNK_POINTS):
            part = slice(start, start + _CHUNK_POINTS)
            values[part] = model.decode_points(points[part].float().to(device), z).cpu()
    values = values.conj() * _low_pass(points, cutoff_shell)  # now at -k, where kz >= 0
    x, y, depth = (-points).unbind(1)
    transform = torch.zeros((box_px // 2 + 1, box_px, box_px), dtype=torch.complex64)
    transform[depth, y % box_px, x % box_px] = values
    flat = depth == 0  # this plane holds k and -k both
    transform[0, -y[flat] % box_px, -x[flat] % box_px] = values[flat].conj()
    # +D/2 and -D/2 are one frequency on the grid: the real part is what can be represented.
    half = box_px // 2
    for index in ((half, 0, 0), (0, half, 0), (0, 0, half)):
        transform[index] = transform[index].real.clone()
    return transform


def _half_space_points(box_px: int, cutoff_shell: float | None) -> Tensor:
    """Return (M, 3) int64 (kx, ky, kz), 0 < |k| <= D/2, one of each pair k and -k, kz <= 0."""
    half = box_px // 2
    radius = half if cutoff_shell is None else min(half, cutoff_shell + _EDGE_SHELLS)
    axis = torch.arange(-half, half + 1)
    kz, ky, kx = torch.meshgrid(torch.arange(-half, 1), axis, axis, indexing="ij")
    keep = kx**2 + ky**2 + kz**2 <= radius**2
    keep &= (kz < 0) | (ky < 0) | ((ky == 0) & (kx < 0))
    return torch.stack([kx[keep], ky[keep], kz[keep]], dim=1)


def _low_pass(points: Tensor, cutoff_shell: float | None) -> Tensor:
    """Return the filter (M,) at points: 1, then half a period of a cosine, then 0."""
    if cutoff_shell is None:
        return torch.ones(len(points))
    radius = points.double().norm(dim=1)
    rise = ((radius - cutoff_shell) / (2 * _EDGE_SHELLS) + 0.5).clamp(0, 1)
    return ((1 + torch.cos(torch.pi * rise)) / 2).float()


def _cutoff_shell(grid: TrainedGrid, settings: VolumeSettings) -> float | None:
    """Return the shell of the low-pass filter; None when it is off."""
    if settings.low_pass_ang is None:
        return None
    if grid.pixel_size_ang is None and settings.pixel_size_ang is None:
        raise InputError("--low-pass: the pixel size of the data is not known; give --Apix")
    box_px = settings.box_px or grid.box_px
    return box_px * written_pixel_size_ang(grid, settings) / settings.low_pass_ang
