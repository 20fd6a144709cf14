"""How long train_pca takes for 1,375,854 particles of 128 px, from passes over a part of them.

Packs a synthetic store (`synthetic_store.py`; its images are noise, which costs as much) and runs,
over the loader under a memory budget that streams, a pass without the sums of the M-step (that is
the embedding of all particles) and one with them, on as many threads as there are processors. The
time of all particles follows from the rate of each pass, which is compared with the rate at which
the loader alone streams the same store. Prints JSON lines.

    python benchmarks/pca_scale.py --folder DIR [--images 100000] [--zdim 8]
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from frazil.engines.pca.grids import Geometry
from frazil.engines.pca.loop import WINDOW_ROWS
from frazil.engines.pca.memory import needs
from frazil.engines.pca.schedule import Plan
from frazil.engines.pca.settings import ModelSettings
from frazil.engines.pca.streaming import BATCH_COEFFICIENTS, BATCH_IMAGES, Fit, run_pass
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.budget import parse_bytes
from frazil.store.reader import ParticleStore
from synthetic_store import make_store

BOX_PX, ALL_PARTICLES = 128, 1_375_854


def loader_of(store: ParticleStore, memory: str) -> ParticleLoader:
    """Return the loader of a pass of train_pca."""
    size = min(BATCH_IMAGES, BATCH_COEFFICIENTS // len(store.disc))
    chosen = LoaderSettings(
        batch_size=size, window_rows=WINDOW_ROWS, memory_bytes=parse_bytes(memory)
    )
    return ParticleLoader(store, chosen)


def measured(store: ParticleStore, args: argparse.Namespace, maximise: bool) -> dict[str, object]:
    """Return the rate of one pass over all of the store, after a batch that compiles."""
    geometry = Geometry.of(BOX_PX)
    volumes, rows = args.zdim + 1, np.zeros(store.count, np.int64)
    generator = torch.Generator().manual_seed(0)
    shape = (volumes, *geometry.shape.tolist())
    grids = 0.01 * torch.randn(shape, dtype=torch.complex64, generator=generator)
    halves = np.arange(store.count) % 2 if maximise else rows
    models = [grids, grids] if maximise else [grids]
    deviation = np.ones((1, BOX_PX // 2 + 1), np.float32)
    fit = Fit(models, deviation, halves, rows, geometry)
    loader = loader_of(store, args.memory)
    run_pass([next(loader.epoch(1))], fit, maximise, args.threads)
    loader = loader_of(store, args.memory)
    load, start = os.getloadavg()[0], time.perf_counter()
    found = run_pass(loader.epoch(1), fit, maximise, args.threads)
    seconds = time.perf_counter() - start
    images = sum(part.images for part in found)
    return {
        "pass": "M-step" if maximise else "embedding",
        "mode": loader.mode,
        "images": images,
        "images_per_s": round(images / seconds),
        "all_minutes": round(ALL_PARTICLES * seconds / images / 60, 1),
        "load_before": round(load, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Write the store, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--zdim", type=int, default=8)
    parser.add_argument("--memory", default="300M", help="of the loader; small, so that it streams")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frazil-scale-", dir=args.folder) as name:
        store = make_store(Path(name) / "X.frz", args.images).path
        opened = ParticleStore.open(store)
        start = time.perf_counter()
        images = sum(len(batch.rows) for batch in loader_of(opened, args.memory).epoch(1))
        rate = round(images / (time.perf_counter() - start))
        print(json.dumps({"what": "the loader alone", "images_per_s": rate}), flush=True)
        for maximise in (False, True):
            print(json.dumps(measured(opened, args, maximise)), flush=True)
        plan = Plan.of(BOX_PX, ModelSettings(zdim=args.zdim))
        held = needs(plan.geometry(BOX_PX), args.zdim, ALL_PARTICLES, ALL_PARTICLES, args.threads)
        passes = [(step.kind, step.box_px) for step in plan.steps(BOX_PX // 2)]
        facts = {"what": "all particles", "memory_mb": round(held.total / 1e6), "passes": passes}
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
