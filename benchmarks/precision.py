"""What int8 and float16 stores cost: images, maps and latents beside a float32 store of the same.

Prints JSON lines. Every figure of int8 and float16 stands beside its yardstick in the same run:
- images: error power per shell relative to the power of the float32 images, and clipped codes;
- maps: FSC with the float32 map per shell, and FSC of half maps and with the truth for each;
- latents: agreement with the true motion, and of runs with one another. What a precision changes at
  an equal seed is compared with what another seed changes at float32;
- outliers: beads and hot pixels put into some images: which are listed as clipped, and their error;
- real: --real FILE ... : stacks of real images, at their box and at half of it.

    python benchmarks/precision.py --out /tmp/precision --images 5000 --box 64 --seeds 3
    python benchmarks/precision.py --out /tmp/precision --images 2000 --box 128 --seeds 0
"""

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from frazil.engines.backproject import Reconstruction, assign_halves, backproject
from frazil.engines.backproject_settings import BackprojectSettings
from frazil.io.images import open_particles
from frazil.io.mrc import read_volume
from frazil.io.mrc_writer import StackWriter
from frazil.io.particles import FLAG_CLIPPED
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.metrics.fsc import fsc
from frazil.metrics.latents import latent_agreement, linear_fit, r_squared
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.statistics import shell_power
from frazil.runs.folder import Run
from frazil.runs.journal import read_journal
from frazil.simulate.dataset import simulate_dataset
from frazil.simulate.settings import SimulateSettings
from frazil.store.manifest import Precision
from frazil.store.reader import ParticleStore

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
COARSE: tuple[Precision, ...] = tuple(p for p in PRECISIONS if p != "float32")
COMPARED_IMAGES = 512
BEADS, HOT, DAMAGED_SET = 20, 20, 1000
Stores = dict[Precision, ParticleStore]


def say(what: str, **facts: Any) -> None:
    """Print one JSON line."""
    print(json.dumps({"what": what, **facts}), flush=True)


def stores_of(
    particles: Path, folder: Path, box_px: int | None = None, poses: bool = True
) -> Stores:
    """Pack a set once per precision, with the same flags."""
    table = open_particles(particles, poses=poses)
    made: Stores = {}
    for precision in PRECISIONS:
        settings = PackSettings(
            precision=precision, box_px=box_px, overwrite=True, max_threads=os.cpu_count() or 1
        )
        folder.mkdir(parents=True, exist_ok=True)
        made[precision] = pack(table, folder / f"{precision}.{box_px or 'full'}.frz", settings)
    return made


def error_ratios(store: ParticleStore, exact: ParticleStore, rows: np.ndarray) -> np.ndarray:
    """Return (n, D/2): error power over the mean power of the float32 images, per image, shell."""
    wanted = exact.images(rows)
    error = shell_power(store.images(rows) - wanted, store.disc)
    return error / shell_power(wanted, store.disc).mean(0)


def image_figures(name: str, stores: Stores, **facts: Any) -> None:
    """Say how the images of each precision differ from those in float32."""
    exact = stores["float32"]
    rows = np.unique(np.linspace(0, exact.count - 1, COMPARED_IMAGES).astype(int))
    for precision in COARSE:
        manifest = stores[precision].manifest
        ratio = error_ratios(stores[precision], exact, rows).mean(0)
        shells = manifest.shells
        say(
            name,
            precision=precision,
            **facts,
            images=exact.manifest.images,
            box_px=exact.box_px,
            compared=len(rows),
            worst_shell_error=float(ratio.max()),
            mean_shell_error=float(ratio.mean()),
            worst_shell=int(ratio.argmax()) + 1,
            error_per_shell=[float(f"{value:.3g}") for value in ratio],
            worst_in_manifest=float(
                np.max(np.square(shells.error_rms) / np.square(shells.rms), initial=0.0)
            ),
            clipped_codes=int(np.sum(shells.clipped)),
            clipped_images=manifest.flagged["clipped"],
            bytes_ratio=exact.codec.step.element_size() / np.dtype(manifest.precision).itemsize,
        )


def maps_of(store: ParticleStore) -> Reconstruction:
    """Return the back-projection of all images, and its halves."""
    loader = ParticleLoader(store, LoaderSettings(batch_size=500))
    halves = assign_halves(loader.columns.rows.numpy(), store.count)
    settings = BackprojectSettings()
    return backproject(loader.in_order(), loader.disc, halves, settings, loader.norm_scale)


def map_figures(stores: Stores, truth: Tensor) -> None:
    """Say how the maps of each precision agree with that of float32, and with the truth."""
    maps = {precision: maps_of(store) for precision, store in stores.items()}
    exact = maps["float32"]
    half_curves = {name: fsc(*found.halves) for name, found in maps.items()}
    true_curves = {name: fsc(found.volume, truth) for name, found in maps.items()}
    for precision in COARSE:
        curve = fsc(maps[precision].volume, exact.volume)[1:]
        say(
            "maps",
            precision=precision,
            images=stores[precision].count,
            box_px=stores[precision].box_px,
            fsc_with_float32_min=float(curve.min()),
            fsc_with_float32_min_shell=int(curve.argmin()) + 1,
            fsc_with_float32=[round(float(value), 6) for value in curve],
            half_map_fsc=[round(float(value), 3) for value in half_curves[precision][1:]],
            half_map_fsc_change=_largest(half_curves, precision),
            truth_fsc=[round(float(value), 3) for value in true_curves[precision][1:]],
            truth_fsc_change=_largest(true_curves, precision),
            met=bool(curve.min() >= 0.999),
        )


def _largest(curves: dict[Precision, Tensor], precision: Precision) -> float:
    """Return the largest difference in any shell from the curve of float32."""
    return float((curves[precision] - curves["float32"]).abs().max())


def trained(store: ParticleStore, seed: int, args: argparse.Namespace) -> Run:
    """Train the small network on a store, in a process of its own."""
    folder = args.out / f"run.{store.path.stem}.{seed}"
    words = (
        f"train_vae {store.path} -o {folder} --zdim {args.zdim} -n {args.epochs} --seed {seed} "
        f"--enc-dim {args.width} --dec-dim {args.width} --no-analysis --overwrite --lr {args.lr} "
        f"-D {args.train_box} --no-amp --device cpu"
    )
    program = [sys.executable, "-m", "frazil.cli.main", *words.split()]
    quiet = subprocess.DEVNULL
    subprocess.run(program, check=True, stdout=quiet, stderr=quiet)
    return Run.open(folder)


def agreement(a: Tensor, b: Tensor) -> dict[str, float]:
    """Return how well each of two latents tells the other, linearly, and their correlations.

    The canonical correlations are those of the subspaces: 1 for latents that differ by any
    invertible linear map.
    """
    both = (r_squared(linear_fit(a, b), b) + r_squared(linear_fit(b, a), a)) / 2
    frames = [torch.linalg.qr(z.double() - z.double().mean(0))[0] for z in (a, b)]
    canonical = torch.linalg.svdvals(frames[0].T @ frames[1])
    return {"linear_r2": both, "cca_mean": float(canonical.mean()), "cca_min": float(canonical[-1])}


def losses_of(run: Run) -> np.ndarray:
    """Return the mean loss of every epoch."""
    lines = read_journal(run.journal_path)
    return np.array([line["loss"] for line in lines if line.get("event") == "epoch"])


def latent_figures(stores: Stores, truth: np.ndarray, args: argparse.Namespace) -> None:
    """Train with every precision and seed; say how latents agree with the truth and each other."""
    runs: dict[tuple[Precision, int], Run] = {}
    for seed in range(args.seeds):
        for precision in args.trained:
            start = time.monotonic()
            run = trained(stores[precision], seed, args)
            runs[precision, seed] = run
            z = torch.from_numpy(run.latents(args.epochs))
            say(
                "training",
                precision=precision,
                seed=seed,
                box_px=args.train_box,
                seconds=round(time.monotonic() - start, 1),
                losses=[round(float(value), 6) for value in losses_of(run)],
                **latent_agreement(z, torch.from_numpy(truth), args.period),
            )
    pairs = [
        ("seed to seed, float32", ("float32", a), ("float32", b))
        for a, b in combinations(range(args.seeds), 2)
    ]
    for precision in (name for name in COARSE if name in args.trained):
        pairs += [
            (f"{precision} to float32, same seed", (precision, seed), ("float32", seed))
            for seed in range(args.seeds)
        ]
    same = stores["int8"].rows["slot"], stores["float32"].rows["slot"]
    say("order", same_order_of_images=bool(np.array_equal(*same)))
    for name in dict.fromkeys(pair[0] for pair in pairs):
        found, loss = [], []
        for _, a, b in (pair for pair in pairs if pair[0] == name):
            za, zb = (torch.from_numpy(runs[key].latents(args.epochs)) for key in (a, b))
            found.append(agreement(za, zb))
            la, lb = losses_of(runs[a]), losses_of(runs[b])
            loss.append(float(np.max(np.abs(la / lb - 1))))
        means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        say("runs compared", pair=name, pairs=len(found), **means, largest_loss_change=max(loss))


def damaged_stack(source: Path, out: Path) -> None:
    """Write images of a stack, with beads in the first and hot pixels in the next of them."""
    images, _ = read_stack(source, DAMAGED_SET)
    side = images.shape[1]
    std = images.std()
    axis = np.arange(side)
    generator = np.random.default_rng(0)
    for i in range(BEADS):
        x, y = generator.integers(side // 4, 3 * side // 4, 2)
        bead = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2 <= (side / 12) ** 2
        images[i][bead] -= 40 * std  # dark, as dense things are
    for i in range(BEADS, BEADS + HOT):
        x, y = generator.integers(side // 4, 3 * side // 4, 2)
        images[i, y, x] += 1000 * std
    with StackWriter(out, (side, side), len(images), 1.0) as writer:
        writer.write(images)


def read_stack(path: Path, count: int) -> tuple[np.ndarray, int]:
    """Return the first images of a stack, and its box."""
    from frazil.io.images import open_images

    with open_images(open_particles(path, poses=False)) as images:
        return images.read(np.arange(min(count, images.count))), images.box_px


def outlier_figures(args: argparse.Namespace, source: Path) -> None:
    """Say which images are listed as clipped, and how exact they and the others are."""
    stack = args.out / "damaged.mrcs"
    damaged_stack(source, stack)
    stores = stores_of(stack, args.out / "damaged", poses=False)
    exact = stores["float32"]
    kinds = {
        "beads": np.arange(BEADS),
        "hot pixels": np.arange(BEADS, BEADS + HOT),
        "others": np.arange(BEADS + HOT, exact.count),
    }
    for precision in COARSE:
        flagged = set(np.flatnonzero(stores[precision].rows["flags"] & FLAG_CLIPPED).tolist())
        for kind, rows in kinds.items():
            wanted = exact.images(rows)
            error = shell_power(stores[precision].images(rows) - wanted, exact.disc)
            power = shell_power(wanted, exact.disc)
            own = error.sum(1) / power.sum(1)
            say(
                "outliers",
                precision=precision,
                kind=kind,
                images=len(rows),
                listed_as_clipped=len(flagged & set(rows.tolist())),
                error_of_own_power_median=float(np.median(own)),
                error_of_own_power_max=float(own.max()),
                error_of_own_shell_max=float((error / power).max()),
            )


def real_figures(path: Path, args: argparse.Namespace) -> None:
    """Say how exact real images are at their box, and at half of it."""
    _, box_px = read_stack(path, 1)
    for box in (None, box_px // 4 * 2):
        stores = stores_of(path, args.out / "real", box, poses=False)
        image_figures("real images", stores, source_box_px=box_px)


def main() -> None:
    """Simulate, pack three times, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="scratch folder")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--swing", type=float, default=360.0, help="of the motion, degrees")
    parser.add_argument("--trained", nargs="*", default=PRECISIONS, help="of these precisions")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train-box", type=int, default=32, help="px; the inner bands are read")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--zdim", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seeds", type=int, default=3, help="0: no training")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="stacks of real images")
    args = parser.parse_args()
    args.period = 360.0 if args.swing == 360 else None
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out / f"set.{args.box}"
    settings = SimulateSettings(
        num=args.images,
        box_px=args.box,
        snr=args.snr,
        swing_deg=args.swing,
        shift_px=2.0,
        overwrite=True,
    )
    simulate_dataset(settings, folder)
    stores = stores_of(folder / "particles.star", args.out / f"stores.{args.box}")
    image_figures("images", stores, snr=args.snr)
    volumes = [read_volume(path)[0] for path in sorted((folder / "truth").glob("vol_*.mrc"))]
    map_figures(stores, torch.from_numpy(np.mean(volumes, axis=0)))
    if args.seeds:
        latent_figures(stores, np.load(folder / "truth" / "conformations.npy"), args)
    outlier_figures(args, folder / "particles.mrcs")
    for path in args.real:
        real_figures(path, args)


if __name__ == "__main__":
    main()
