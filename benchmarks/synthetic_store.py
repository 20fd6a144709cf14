"""A store of noise of any size, written shard by shard without any images.

Every int8 code is drawn anew: random bytes through a table of 255 normal quantiles. Poses are
random, the CTF is that of one micrograph. Used by the benchmarks of streaming; a store of
1,375,854 particles of 128 px takes 18 GB of disk.

    python benchmarks/synthetic_store.py FOLDER/X.frz --particles 1375854 [-D 128]
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm

from frazil import __version__
from frazil.geometry.packing import TILE_PX, half_disc
from frazil.geometry.rotations import random_rotations
from frazil.io.atomic import write_npy_atomic
from frazil.io.particles import PARTICLE_DTYPE
from frazil.store.budget import size_text
from frazil.store.codec import STEPS_PER_SIGMA, shell_steps
from frazil.store.manifest import (
    BandRecord,
    Manifest,
    OpticsGroup,
    Processing,
    ShellTable,
    write_manifest,
)
from frazil.store.reader import ParticleStore
from frazil.store.writer import (
    BLOCK_ROWS,
    StorePlan,
    block_checksums,
    file_checksum,
    image_places,
    rows_per_shard,
    shard_path,
)

PIXEL_SIZE_ANG = 1.5
SPARE_BYTES = 4 << 30


def write_synthetic_store(path: Path, particles: int, box_px: int, seed: int = 0) -> ParticleStore:
    """Write a store of noise and return it, opened; refuses a disk that is too small."""
    disc = half_disc(box_px)
    values = 2 * len(disc)
    plan = StorePlan(
        images=particles,
        record_values=values,
        value_type="int8",
        bands=[BandRecord(*band) for band in disc.bands],
        rows_per_shard=rows_per_shard(values),
        block_rows=BLOCK_ROWS,
        seed=seed,
        fingerprint="synthetic",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = particles * values, shutil.disk_usage(path.parent).free
    if needed + SPARE_BYTES > free:
        raise SystemExit(f"{path}: needs {size_text(needed)}, {size_text(free)} are free")
    (path / "shards").mkdir(parents=True)
    generator = np.random.default_rng(seed)
    sums = [_write_shard(path, plan, shard, generator) for shard in range(len(plan.shard_rows))]
    frequencies = torch.stack([disc.kx, disc.ky], 1).numpy().astype(np.int16)
    arrays = {
        "particles": _rows(plan, seed),
        "frequencies": frequencies,
        "checksums": np.concatenate(sums),
    }
    for name, array in arrays.items():
        write_npy_atomic(path / f"{name}.npy", array)
    write_manifest(path, _manifest(plan, box_px, path, list(arrays)))
    return ParticleStore.open(path)


def _write_shard(
    path: Path, plan: StorePlan, shard: int, generator: np.random.Generator
) -> np.ndarray:
    """Write the bands of one shard; return its checksums (blocks, bands)."""
    levels = (np.arange(256) % 255 + 0.5) / 255
    table = np.rint(norm.ppf(levels) * STEPS_PER_SIGMA).astype(np.int8)
    sums = []
    for number, band in enumerate(plan.bands):
        shape = (plan.shard_rows[shard], 2 * (band.stop - band.start))
        raw = np.frombuffer(generator.bytes(shape[0] * shape[1]), np.uint8)
        codes = table[raw].reshape(shape)
        write_npy_atomic(shard_path(path, shard, number), codes)
        sums.append(block_checksums(codes, plan.block_rows))
    return np.stack(sums, axis=1)


def _rows(plan: StorePlan, seed: int) -> np.ndarray:
    """Return (N,) rows of particles.npy: random poses and shifts, one CTF."""
    rows = np.zeros(plan.images, PARTICLE_DTYPE)
    rows["uid"] = np.arange(1, plan.images + 1)
    rows["index"] = np.arange(plan.images)
    rows["shard"], rows["slot"] = image_places(plan.images, plan.rows_per_shard, plan.seed)
    generator = torch.Generator().manual_seed(seed)
    rows["rotation"] = random_rotations(plan.images, generator).numpy()
    rows["shift_ang"] = torch.randn(plan.images, 2, generator=generator).numpy()
    constants = {
        "pixel_size_ang": PIXEL_SIZE_ANG,
        "defocus_u_ang": 15000,
        "defocus_v_ang": 14500,
        "astigmatism_deg": 30,
        "voltage_kv": 300,
        "cs_mm": 2.7,
        "amplitude_contrast": 0.1,
        "phase_shift_deg": 0,
        "half_set": -1,
        "group": -1,
        "image_gain": 1,
    }
    for name, value in constants.items():
        rows[name] = value
    return rows


def _manifest(plan: StorePlan, box_px: int, path: Path, arrays: list[str]) -> Manifest:
    rms = np.full(box_px // 2, float(box_px))
    return Manifest(
        program=f"frazil {__version__}",
        command="benchmarks/synthetic_store.py",
        box_px=box_px,
        pixel_size_ang=PIXEL_SIZE_ANG,
        processing=Processing(box_px, "window-first", (0.85, 0.99), -1),
        precision="int8",
        tile_px=TILE_PX,
        bands=plan.bands,
        particles=plan.images,
        images=plan.images,
        rows_per_shard=plan.rows_per_shard,
        block_rows=plan.block_rows,
        shard_rows=plan.shard_rows,
        seed=plan.seed,
        shells=ShellTable(
            step=shell_steps(rms, "int8").tolist(),
            rms=rms.tolist(),
            error_rms=(rms / 42).tolist(),
            clipped=[0] * len(rms),
        ),
        optics=[OpticsGroup("noise", plan.images, rms.tolist())],
        groups=[],
        blob_sign=None,
        has_pose=True,
        has_shift=True,
        has_ctf=True,
        rows_in=plan.images,
        dropped={},
        flagged={"nonfinite": 0, "clipped": 0, "constant": 0},
        origin="noise",
        sources=[],
        fingerprint=plan.fingerprint,
        file_checksums={f"{name}.npy": file_checksum(path / f"{name}.npy") for name in arrays},
    )


def main() -> None:
    """Write a store and print the time it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--particles", type=int, default=1_375_854)
    parser.add_argument("-D", type=int, default=128)
    args = parser.parse_args()
    start = time.perf_counter()
    store = write_synthetic_store(args.store, args.particles, args.D)
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    seconds = time.perf_counter() - start
    print(json.dumps({"particles": args.particles, "bytes": size, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
