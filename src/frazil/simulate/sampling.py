"""What is drawn at random for each particle of a simulation.

Owns: `Draw`. Does not own: images (`images`), noise (`noise`), files (`dataset`, `export`).
Every quantity has a random stream of its own, so the first n particles of a larger set with the
same seed have the same pose, conformation, CTF and noise pattern.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from frazil.errors import InputError
from frazil.geometry.rotations import from_cryosparc, from_relion_euler, random_rotations
from frazil.simulate.motions import Motion
from frazil.simulate.noise import EMPTY, JUNK, PARTICLE
from frazil.simulate.settings import SimulateSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """Everything that is random about N particles except the noise, in order of the stack rows.

    Attributes
    ----------
    coordinate : (N,) or (N, C) conformation: angles in degrees, or number of the state.
    rotation : (N, 3, 3), model frame to image frame.
    shift_px : (N, 2), (x, y) that centres the particle when applied to the image.
    told_rotation, told_shift_px : what the files say of them, with the errors asked for.
    gain : (N,) contrast factor, mean 1.
    outlier : (N,) int8, 0 for a particle, else a kind of `noise`.
    ctf : (N, 8), columns of `geometry.ctf`.
    half_set : (N,) 1 or 2.
    optics_group : (N,) from 0.
    uid : (N,) uint64, unique and not 0.
    """

    coordinate: Array
    rotation: Array
    shift_px: Array
    told_rotation: Array
    told_shift_px: Array
    gain: Array
    outlier: NDArray[np.int8]
    ctf: Array
    half_set: NDArray[np.int8]
    optics_group: NDArray[np.int64]
    uid: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.coordinate)


def draw_particles(settings: SimulateSettings, motion: Motion, pixel_size_ang: float) -> Draw:
    """Return the random draw of all particles.

    Raises
    ------
    InputError
        a defocus range that is not low to high.
    """
    count = settings.num
    rotation = _draw_rotations(settings)
    shift_px = _stream(settings, 5).standard_normal((count, 2)) * settings.shift_px
    shift_error_px = _stream(settings, 12).standard_normal((count, 2)) * settings.shift_error_px
    spread = _stream(settings, 1).standard_normal(count) * settings.contrast_std
    is_outlier = _stream(settings, 2).random(count) < settings.outliers
    kinds = _stream(settings, 3).integers(EMPTY, JUNK + 1, count)
    high = _stream(settings, 4).integers(0, 2**32, count, dtype=np.uint64)
    return Draw(
        coordinate=motion.draw(count, _stream(settings, 0)),
        rotation=rotation,
        shift_px=shift_px,
        told_rotation=_pose_errors(settings) @ rotation,
        told_shift_px=shift_px + shift_error_px,
        gain=np.exp(spread - settings.contrast_std**2 / 2),
        outlier=np.where(is_outlier, kinds, PARTICLE).astype(np.int8),
        ctf=_draw_ctf(settings, pixel_size_ang),
        half_set=_stream(settings, 6).integers(1, 3, count).astype(np.int8),
        optics_group=_stream(settings, 13).integers(0, max(1, len(settings.group_noise)), count),
        uid=(high << np.uint64(32)) | np.arange(1, count + 1, dtype=np.uint64),
    )


def star_order(settings: SimulateSettings) -> NDArray[np.int64]:
    """Return the stack row (N,) of each row of the .star."""
    if settings.shuffle_star:
        return _stream(settings, 7).permutation(settings.num)
    return np.arange(settings.num)


def _draw_rotations(settings: SimulateSettings) -> Array:
    """Return rotations (N, 3, 3): uniform, or with a density exp(K cos^2 tilt) of the views."""
    count, concentration = settings.num, settings.preferred
    if concentration == 0:
        return random_rotations(count, torch.Generator().manual_seed(settings.seed)).numpy()
    uniform = _stream(settings, 14).random((count, 3))
    cosine = np.linspace(-1, 1, 8193)
    density = np.exp(concentration * (cosine**2 - 1))
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    tilt_deg = np.degrees(np.arccos(np.interp(uniform[:, 0] * below[-1], below, cosine)))
    rot_deg, psi_deg = 360 * uniform[:, 1], 360 * uniform[:, 2]
    return from_relion_euler(*map(torch.from_numpy, (rot_deg, tilt_deg, psi_deg))).numpy()


def _pose_errors(settings: SimulateSettings) -> Array:
    """Return small rotations (N, 3, 3) about random axes in the image frame, of the RMS asked for.

    Their rotation vectors are normal, so the three axes err alike and on their own.
    """
    deviation_rad = np.radians(settings.pose_error_deg) / 3**0.5
    vectors = _stream(settings, 11).standard_normal((settings.num, 3)) * deviation_rad
    return from_cryosparc(torch.from_numpy(vectors)).numpy()


def _draw_ctf(settings: SimulateSettings, pixel_size_ang: float) -> Array:
    """Return CTF parameters (N, 8): defocus uniform, U - V exponential, random angle."""
    low, high = settings.defocus_um
    if not low <= high:
        raise InputError(f"--defocus-um {low} {high}: give the lower defocus first")
    count = settings.num
    middle_ang = 1e4 * _stream(settings, 8).uniform(low, high, count)
    half_difference = _stream(settings, 9).exponential(settings.astigmatism_ang / 2, count)
    parameters = np.zeros((count, 8))
    parameters[:, 0] = pixel_size_ang
    parameters[:, 1] = middle_ang + half_difference
    parameters[:, 2] = middle_ang - half_difference
    parameters[:, 3] = _stream(settings, 10).uniform(0, 180, count)
    parameters[:, 4] = settings.voltage_kv
    parameters[:, 5] = settings.cs_mm
    parameters[:, 6] = settings.amplitude_contrast
    return parameters


def _stream(settings: SimulateSettings, number: int) -> np.random.Generator:
    """Return an independent random generator for each number."""
    return np.random.default_rng((settings.seed, number))
