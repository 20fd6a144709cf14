"""A store of noise of any size, for benchmarks of the loader.

A small stack of noise is packed by `frazil.preprocess` for its manifest; then shards of random
codes are written under that manifest with their checksums, so every reader takes the store for a
packed one. Every code is drawn anew: random bytes through a table of 255 normal quantiles. A store
of 1,375,854 images of 128 px takes 18 GB.

    python benchmarks/synthetic_store.py OUT.frz --images 160000 [-D 128]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import norm

from frazil.io.atomic import write_npy_atomic
from frazil.io.images import open_particles
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.budget import free_disk_bytes, size_text
from frazil.store.checksums import block_checksums, file_checksum
from frazil.store.codec import STEPS_PER_SIGMA
from frazil.store.manifest import Manifest, write_manifest
from frazil.store.reader import ParticleStore
from frazil.store.sizes import record_bytes
from frazil.store.writer import image_places, shard_path
from preprocess_vs_cryodrgn import make_stack

_SMALL = 128
SPARE_BYTES = 4 << 30


def make_store(out: Path, images: int, box_px: int = 128) -> ParticleStore:
    """Write an int8 store of `images` records of noise with poses and CTF; return it, open."""
    needed, free = images * record_bytes(box_px, "int8"), free_disk_bytes(out)
    if needed + SPARE_BYTES > free:
        raise SystemExit(f"{out}: needs {size_text(needed)} of disk, {size_text(free)} are free")
    with tempfile.TemporaryDirectory(prefix="frazil-synthetic-", dir=out.parent) as name:
        stack = Path(name) / "small.mrcs"
        make_stack(stack, _SMALL, box_px)
        table = open_particles(stack)
        poses = np.broadcast_to(np.eye(3), (_SMALL, 3, 3))
        ctf = np.broadcast_to(
            [box_px, 1.5, 12_000.0, 11_500.0, 30.0, 300.0, 2.7, 0.1, 0.0], (_SMALL, 9)
        )
        table = table.with_ctf(ctf).with_poses(poses, np.zeros((_SMALL, 2)))
        small = pack(table, Path(name) / "small.frz", PackSettings())
        (out / "shards").mkdir(parents=True)
        shutil.copy(small.path / "frequencies.npy", out)
        manifest = _larger(small.manifest, images)
        rows = np.resize(np.array(small.rows), images)
    rows["shard"], rows["slot"] = image_places(images, manifest.rows_per_shard, manifest.seed)
    rows["index"], rows["uid"] = np.arange(images), np.arange(1, images + 1)
    write_npy_atomic(out / "particles.npy", rows)
    write_npy_atomic(out / "checksums.npy", _write_shards(out, manifest))
    names = ("particles.npy", "frequencies.npy", "checksums.npy")
    sums = {name: file_checksum(out / name) for name in names}
    write_manifest(out, msgspec.structs.replace(manifest, file_checksums=sums))
    return ParticleStore.open(out)


def _larger(small: Manifest, images: int) -> Manifest:
    """Return the manifest of the same kind of store with more images."""
    full, rest = divmod(images, small.rows_per_shard)
    shard_rows = [small.rows_per_shard] * full + ([rest] if rest else [])
    counts = {"particles": images, "images": images, "rows_in": images, "shard_rows": shard_rows}
    return msgspec.structs.replace(small, fingerprint=f"synthetic {images}", **counts)


def _write_shards(out: Path, manifest: Manifest) -> np.ndarray:
    """Write all shards; return their checksums (blocks, bands)."""
    generator = np.random.default_rng(0)
    levels = (np.arange(256) % 255 + 0.5) / 255
    table = np.rint(norm.ppf(levels) * STEPS_PER_SIGMA).astype(np.int8)
    sums = []
    for shard, count in enumerate(manifest.shard_rows):
        parts = []
        for number, band in enumerate(manifest.bands):
            shape = (count, 2 * (band.stop - band.start))
            raw = np.frombuffer(generator.bytes(shape[0] * shape[1]), np.uint8)
            codes = table[raw].reshape(shape)
            write_npy_atomic(shard_path(out, shard, number), codes)
            parts.append(block_checksums(codes, manifest.block_rows))
        sums.append(np.stack(parts, axis=1))
    return np.concatenate(sums)


def main() -> None:
    """Write a store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.frz")
    parser.add_argument("--images", type=int, default=160_000)
    parser.add_argument("-D", type=int, default=128)
    args = parser.parse_args()
    store = make_store(args.out, args.images, args.D)
    print(f"{store.path}: {store.count} images, {len(store.manifest.shard_rows)} shards")


if __name__ == "__main__":
    main()
