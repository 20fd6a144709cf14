"""Simulated sets with a known mistake in them, for preflight.

A mistake is a change of the metadata (`ROW_MISTAKES`: rows of a store to other rows) or of the
images (`IMAGE_MISTAKES`: images to other images, packed anew). `EXPECTED` says which mistakes
preflight has to name.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch

from frazil.geometry.rotations import random_rotations
from frazil.io.images import open_images, open_particles
from frazil.io.mrc_writer import StackWriter
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings
from frazil.store.reader import ParticleStore

Images = np.ndarray
Rows = np.ndarray

# mistake -> names of the findings that are mistakes or warnings
EXPECTED = {
    "none": set(),
    "inverted contrast": {"contrast inverted"},
    "shifts negated": {"shifts negated"},
    "shifts negated in x": {"shifts negated in x"},
    "shifts swapped": {"shifts swapped"},
    "shifts x2": {"shifts x0.5"},
    "shifts x0.5": {"shifts x2"},
    "wrong -D (x1.5)": {"shifts x1.5"},
    "rotations transposed": {"rotations transposed"},
    "rows reordered": {"poses of other images"},
    "poses off by one": {"poses of the row after"},
    "poses of another set": {"poses of other images"},
    "pixel size of the CTF x2": {"pixel size x0.5"},
    "pixel size of the CTF x0.5": {"pixel size x2"},
    "pixel size x2": {"pixel size x0.5", "shifts x2"},
    "images phase-flipped": {"phase-flipped"},
    "images CTF-premultiplied": {"CTF-premultiplied"},
    "images centred already": {"shifts applied already"},
    "spike in images": {"centre spike of images"},
    "transposed and negated": {"rotations transposed", "shifts negated"},
}


def changed(rows: Rows, **columns: np.ndarray) -> Rows:
    """Return rows with other columns."""
    out = rows.copy()
    for name, values in columns.items():
        out[name] = values
    return out


def _scaled_shift(factor: float) -> Callable[[Rows], Rows]:
    return lambda rows: changed(rows, shift_ang=rows["shift_ang"] * np.float32(factor))


def _scaled_pixel(factor: float, shifts_too: bool) -> Callable[[Rows], Rows]:
    """Return the change of a wrong pixel size; shifts on file are in px, or in Angstrom."""

    def change(rows: Rows) -> Rows:
        shift = rows["shift_ang"] * np.float32(factor if shifts_too else 1)
        return changed(rows, pixel_size_ang=rows["pixel_size_ang"] * factor, shift_ang=shift)

    return change


def _pose_columns(rows: Rows, order: np.ndarray) -> Rows:
    names = ("rotation", "shift_ang", "defocus_u_ang", "defocus_v_ang", "astigmatism_deg")
    return changed(rows, **{name: rows[name][order] for name in names})


def _of_another_set(rows: Rows) -> Rows:
    generator = torch.Generator().manual_seed(77)
    rotation = random_rotations(len(rows), generator).numpy()
    return changed(rows, rotation=rotation, shift_ang=np.roll(rows["shift_ang"], 7, axis=0))


def _transposed(rows: Rows) -> Rows:
    return changed(rows, rotation=rows["rotation"].transpose(0, 2, 1))


ROW_MISTAKES: dict[str, Callable[[Rows], Rows]] = {
    "none": lambda rows: rows,
    "shifts negated": _scaled_shift(-1),
    "shifts negated in x": lambda rows: changed(
        rows, shift_ang=rows["shift_ang"] * np.array([-1, 1], np.float32)
    ),
    "shifts swapped": lambda rows: changed(rows, shift_ang=rows["shift_ang"][:, ::-1]),
    "shifts x2": _scaled_shift(2),
    "shifts x0.5": _scaled_shift(0.5),
    "wrong -D (x1.5)": _scaled_shift(1 / 1.5),
    "rotations transposed": _transposed,
    "rows reordered": lambda rows: _pose_columns(
        rows, np.random.default_rng(5).permutation(len(rows))
    ),
    "poses off by one": lambda rows: changed(
        rows, **{name: np.roll(rows[name], 1, axis=0) for name in ("rotation", "shift_ang")}
    ),
    "poses of another set": _of_another_set,
    "pixel size of the CTF x2": _scaled_pixel(2, shifts_too=True),
    "pixel size of the CTF x0.5": _scaled_pixel(0.5, shifts_too=True),
    "pixel size x2": _scaled_pixel(2, shifts_too=False),
    "transposed and negated": lambda rows: _scaled_shift(-1)(_transposed(rows)),
}


def transfer_of(row: np.void, kx: np.ndarray, ky: np.ndarray, side: int) -> np.ndarray:
    """Return the CTF of a row at frequencies in cycles per box, written out in numpy."""
    volt = float(row["voltage_kv"]) * 1e3
    wave_ang = 12.2639 / np.sqrt(volt + 0.97845e-6 * volt**2)
    squared = (kx**2 + ky**2) / (side * float(row["pixel_size_ang"])) ** 2
    u, v = float(row["defocus_u_ang"]), float(row["defocus_v_ang"])
    angle = np.arctan2(ky, kx) - np.radians(float(row["astigmatism_deg"]))
    defocus_ang = (u + v + (u - v) * np.cos(2 * angle)) / 2
    cs_ang, w = float(row["cs_mm"]) * 1e7, float(row["amplitude_contrast"])
    gamma = np.pi * (cs_ang * wave_ang**3 * squared**2 / 2 - defocus_ang * wave_ang * squared)
    gamma -= np.radians(float(row["phase_shift_deg"]))
    return np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma)


def _by_transfer(kind: str) -> Callable[[Images, Rows], Images]:
    """Return the change that multiplies images by the sign of their CTF, or by the CTF.

    Light particles are minus the CTF times the slice, so what is light afterwards is multiplied by
    minus the sign, or minus the CTF.
    """

    def change(images: Images, rows: Rows) -> Images:
        side = images.shape[-1]
        ky, kx = np.meshgrid(
            np.fft.fftfreq(side, 1 / side), np.arange(side // 2 + 1), indexing="ij"
        )
        out = np.empty_like(images)
        for i, row in enumerate(rows):
            values = transfer_of(row, kx, ky, side)
            factor = -np.sign(values) if kind == "sign" else -values
            out[i] = np.fft.irfft2(np.fft.rfft2(images[i]) * factor, s=(side, side))
        return out

    return change


def _centred(images: Images, rows: Rows) -> Images:
    """Return images moved by their shifts: the particle is in the middle then."""
    side = images.shape[-1]
    shift_px = rows["shift_ang"] / rows["pixel_size_ang"][:, None]
    kx, ky = np.fft.rfftfreq(side), np.fft.fftfreq(side)[:, None]
    out = np.empty_like(images)
    for i, (x, y) in enumerate(shift_px):
        ramp = np.exp(-2j * np.pi * (kx * x + ky * y))
        out[i] = np.fft.irfft2(np.fft.rfft2(images[i]) * ramp, s=(side, side))
    return out


def _with_spike(images: Images, _rows: Rows) -> Images:
    out = images.copy()
    out[:, images.shape[1] // 2, images.shape[2] // 2] += 2 * images.std()
    return out


IMAGE_MISTAKES: dict[str, Callable[[Images, Rows], Images]] = {
    "inverted contrast": lambda images, _rows: -images,
    "images phase-flipped": _by_transfer("sign"),
    "images CTF-premultiplied": _by_transfer("ctf"),
    "images centred already": _centred,
    "spike in images": _with_spike,
}


def simulated_store(folder: Path, **settings: object) -> ParticleStore:
    """Return the store of a simulated set in a folder, made when it is not there."""
    out = folder / "particles.frz"
    if not out.exists():
        simulate_dataset(SimulateSettings(**settings), folder)
        pack(open_particles(folder / "particles.star"), out, PackSettings())
    return ParticleStore.open(out)


def with_mistake(folder: Path, store: ParticleStore, name: str) -> ParticleStore:
    """Return the store of `simulated_store` with a mistake in it."""
    if name in ROW_MISTAKES:
        return store.with_rows(ROW_MISTAKES[name](np.array(store.rows)))
    table = open_particles(folder / "particles.star")
    images = open_images(table).read(np.arange(len(table)))
    wrong = folder / "wrong"
    shutil.rmtree(wrong, ignore_errors=True)
    wrong.mkdir()
    shutil.copy(folder / "particles.star", wrong)
    side = images.shape[-1]
    pixel_ang = float(table.rows["pixel_size_ang"][0])
    with StackWriter(wrong / "particles.mrcs", (side, side), len(table), pixel_ang) as writer:
        writer.write(IMAGE_MISTAKES[name](images, table.rows).astype(np.float32))
    settings = msgspec.structs.replace(PackSettings(), overwrite=True)
    return pack(open_particles(wrong / "particles.star"), wrong / "particles.frz", settings)
