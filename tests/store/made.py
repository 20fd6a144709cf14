"""Small particle sets and stores for the tests of store, preprocess and loader."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frazil.geometry.rotations import random_rotations
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.preprocess import pipeline, prepared
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store import writer
from frazil.store.reader import ParticleStore

PIXEL_ANG = 1.5
MODES = {"i1": 0, "i2": 1, "f4": 2, "u2": 6, "f2": 12}


def make_images(count: int, box_px: int, seed: int = 0) -> np.ndarray:
    """Return (count, D, D) float32: coloured noise of unequal strength, and an offset."""
    generator = np.random.default_rng(seed)
    white = generator.normal(size=(count, box_px, box_px))
    k = np.fft.fftfreq(box_px)
    fall = 1 / (0.15 + np.hypot(k[:, None], k[None, :]))
    images = np.fft.ifft2(np.fft.fft2(white) * fall).real
    strength = generator.uniform(0.5, 2.0, size=(count, 1, 1))
    return (images * strength + 3).astype(np.float32)


def write_stack(
    path: Path, images: np.ndarray, kind: str = "f4", order: str = "<", extended_bytes: int = 0
) -> Path:
    """Write an MRC stack of any pixel type and byte order."""
    nz, ny, nx = images.shape
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, nx, ny, nz, MODES[kind], 0, 0, 0, nx, ny, 1)
    cell = (nx * PIXEL_ANG, ny * PIXEL_ANG, PIXEL_ANG)
    struct.pack_into(f"{order}6f", header, 40, *cell, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}2i", header, 88, 0, extended_bytes)
    stamp = (0x44, 0x44) if order == "<" else (0x11, 0x11)
    struct.pack_into("4s4B", header, 208, b"MAP ", *stamp, 0, 0)
    data = images.astype(np.dtype(order + kind))
    path.write_bytes(bytes(header) + bytes(extended_bytes) + data.tobytes())
    return path


def with_metadata(table: ParticleTable, seed: int = 0) -> ParticleTable:
    """Return a table with random poses, shifts and CTF."""
    generator = np.random.default_rng(seed)
    count = len(table)
    rotation = random_rotations(count, torch.Generator().manual_seed(seed)).numpy()
    defocus = generator.uniform(8e3, 2e4, size=(count, 2))
    rest = np.broadcast_to([12.0, 300.0, 2.7, 0.1, 5.0], (count, 5))
    box = np.broadcast_to([float(table.box_px or 0), PIXEL_ANG], (count, 2))
    table = table.with_ctf(np.concatenate([box, defocus, rest], axis=1))
    return table.with_poses(rotation, generator.normal(size=(count, 2)) * 0.02)


def make_particles(folder: Path, count: int, box_px: int, seed: int = 0) -> ParticleTable:
    """Write a stack of noise and return its particles with poses, shifts and CTF."""
    path = write_stack(folder / "particles.mrcs", make_images(count, box_px, seed))
    return with_metadata(open_particles(path), seed)


def make_store(folder: Path, count: int, box_px: int, **settings: Any) -> ParticleStore:
    """Pack such particles into folder/X.frz."""
    table = make_particles(folder, count, box_px)
    return pack(table, folder / "X.frz", PackSettings(**{"max_threads": 1, **settings}))


def shrink(monkeypatch: pytest.MonkeyPatch, shard_rows: int, block_rows: int, box_px: int) -> None:
    """Make int8 shards of `shard_rows`, and commit after nearly every block of images."""
    from frazil.geometry.packing import half_disc

    for module in (writer, pipeline):
        monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(writer, "SHARD_BYTES", shard_rows * 2 * len(half_disc(box_px)))
    monkeypatch.setattr(prepared, "TASK_BYTES", 1)
    monkeypatch.setattr(pipeline, "APPEND_BYTES", 1)
    monkeypatch.setattr(pipeline, "COMMIT_BYTES", 1)


def all_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def numpy_coefficients(folder: Path, row: int) -> np.ndarray:
    """Return the coefficients of one particle with json and numpy alone, as docs/store.md says."""
    import json

    manifest = json.loads((folder / "manifest.json").read_text())
    particle = np.load(folder / "particles.npy")[row]
    frequencies = np.load(folder / "frequencies.npy").astype(float)
    shards = folder / "shards"
    codes = np.concatenate(
        [
            np.load(shards / f"{particle['shard']:05d}.b{band}.npy")[particle["slot"]]
            for band in range(len(manifest["bands"]))
        ]
    ).astype(np.float32)
    shell = np.ceil(np.hypot(*frequencies.T) - 1e-9).astype(int)
    step = np.array(manifest["shells"]["step"])[shell - 1]
    return (codes[0::2] + 1j * codes[1::2]) * step * particle["image_gain"]
