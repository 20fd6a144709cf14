"""Numerical agreement with cryoDRGN, and the speed of a training step next to its own.

Prints one JSON line per comparison: CTF, window, Fourier crop, slices, translation, and the vae
loss and 20 training steps from the same weights on the same image files; then images per
CPU-second of a training step of both, in turns, on one thread each.

    python benchmarks/agreement_cryodrgn.py --cryodrgn VENV/bin/python [--speed 64x256 128x1024]

cryoDRGN runs in its own interpreter, through its public functions, on files that both read. Its
known slips are allowed for, and shown by the lines "as given": shifts as fractions of the box are
multiplied by D + 1 in place of D (so it is given shifts times D / (D + 1)), and after a crop the
-Nyquist row is copied to +Nyquist (so Nyquist is left out of the comparison of crops). Mixed
precision is off, and z = mu, because the two draw other noise.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

BOX_PX, CROP_PX, IMAGES, BATCH = 64, 32, 32, 8
ZDIM, WIDTH, LAYERS, STEPS, LR = 4, 64, 3, 20, 1e-3
SCALE = 250.0  # the norm of the volume that is compared

# ------------------------------------------------------------------ in cryoDRGN's interpreter


def worker(folder: Path) -> None:
    """Answer requests, one name per line on stdin, by files in the folder; times on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what cryoDRGN prints goes to the log
    torch.set_num_threads(1)
    stepper: Callable[[], None] | None = None
    for line in sys.stdin:
        name, *rest = line.split()
        seconds = 0.0
        if name == "conventions":
            _their_conventions(folder)
        elif name == "training":
            _their_training(folder)
        elif name == "prepare":
            stepper = _their_stepper(folder, *map(int, rest))
            stepper()
        elif name == "step" and stepper is not None:
            start = time.process_time()
            stepper()
            seconds = time.process_time() - start
        answers.write(f"{seconds}\n")
        answers.flush()


def _their_conventions(folder: Path) -> None:
    from cryodrgn import ctf, dataset, fft, lattice, masking
    from cryodrgn.commands.downsample import downsample_mrc_images
    from cryodrgn.source import ImageSource

    given = np.load(folder / "conventions.npz")
    parameters = torch.from_numpy(given["ctf_parameters"])
    values = [
        ctf.compute_ctf(torch.from_numpy(given["k"]) / (BOX_PX * p[0]), *p[1:, None])
        for p in parameters
    ]
    window = masking.spherical_window_mask(D=BOX_PX, in_rad=0.85, out_rad=0.99)
    source = ImageSource.from_file(str(folder / "set" / "particles.mrcs"), lazy=False)
    downsample_mrc_images(source, CROP_PX, str(folder / "cropped.mrcs"), 16)
    cropped = ImageSource.from_file(str(folder / "cropped.mrcs"), lazy=False).images()

    grid = lattice.Lattice(BOX_PX + 1, extent=0.5)
    images = torch.from_numpy(given["images"])
    hartley = fft.symmetrize_ht(fft.ht2_center(images)).reshape(len(images), -1)
    shifts = torch.from_numpy(given["shifts_px"])[:, None]
    moved = grid.translate_ht(hartley, shifts)

    mask = grid.get_circular_mask(BOX_PX // 2)
    model = _their_model(BOX_PX, WIDTH)
    with torch.no_grad():
        slices = [
            model.decode((grid.coords[mask] @ rotation)[None], z[None])[0]
            for rotation, z in zip(
                torch.from_numpy(given["rotations"]), torch.from_numpy(given["z"]), strict=True
            )
        ]
        volume = model.eval().decoder.eval_volume(
            grid.coords, grid.D, grid.extent, (0.0, SCALE), given["z"][0]
        )
    data = dataset.ImageDataset(
        str(folder / "set" / "particles.mrcs"), lazy=False, norm=(0, 1.0), invert_data=True
    )
    np.savez(
        folder / "their_conventions.npz",
        ctf=torch.stack(values).numpy(),
        window=window.numpy(),
        cropped=cropped.numpy(),
        moved=moved.reshape(len(images), BOX_PX + 1, BOX_PX + 1).numpy(),
        coordinates=torch.round(grid.coords[mask] * BOX_PX).numpy(),
        slices=torch.stack(slices).numpy(),
        volume=np.asarray(volume),
        hartley=data[np.arange(BATCH)]["y"].numpy(),
        **{f"weights.{name}": value.numpy() for name, value in model.state_dict().items()},
    )


def _their_model(box_px: int, width: int) -> Any:
    from cryodrgn import lattice, models

    torch.manual_seed(0)
    grid = lattice.Lattice(box_px + 1, extent=0.5)
    mask = grid.get_circular_mask(box_px // 2)
    return models.HetOnlyVAE(
        grid,
        LAYERS,
        width,
        LAYERS,
        width,
        int(mask.sum()),
        ZDIM,
        encode_mode="resid",
        enc_mask=mask,
        enc_type="gaussian",
        domain="fourier",
        feat_sigma=0.5,
    )


def _their_inputs(folder: Path, poses: str) -> tuple[Any, ...]:
    """Return (images, rotations, shifts, CTF, lattice) of the simulated set."""
    from cryodrgn import ctf, dataset, lattice, pose

    scale = float((folder / "scale.txt").read_text())
    data = dataset.ImageDataset(
        str(folder / "set" / "particles.mrcs"), lazy=False, norm=(0, scale), invert_data=True
    )
    tracker = pose.PoseTracker.load(str(folder / poses), data.N, data.D)
    parameters = ctf.load_ctf_for_training(data.D - 1, str(folder / "set" / "ctf.pkl"))
    everything = torch.arange(data.N)
    rotations, shifts = tracker.get_pose(everything)
    images = data[everything.numpy()]["y"]
    return images, rotations, shifts, torch.from_numpy(parameters), lattice.Lattice(data.D)


def _their_training(folder: Path) -> None:
    from cryodrgn.commands import train_vae

    for poses in ("poses_scaled.pkl", "set/poses.pkl"):
        images, rotations, shifts, parameters, grid = _their_inputs(folder, poses)
        model = _their_model(BOX_PX, WIDTH)
        model.reparameterize = lambda mu, logvar: mu
        optimiser = torch.optim.Adam(model.parameters(), lr=LR)
        losses = []
        for step in range(STEPS):
            part = torch.arange(step * BATCH, (step + 1) * BATCH) % IMAGES
            losses.append(
                train_vae.train_batch(
                    model,
                    grid,
                    images[part],
                    None,
                    rotations[part],
                    shifts[part],
                    optimiser,
                    1 / ZDIM,
                    ctf_params=parameters[part],
                )
            )
        name = "their_training.npy" if "scaled" in poses else "their_training_as_given.npy"
        np.save(folder / name, np.array([[float(v) for v in one] for one in losses]))


def _their_stepper(folder: Path, box_px: int, width: int, batch: int) -> Callable[[], None]:
    from cryodrgn import lattice
    from cryodrgn.commands import train_vae

    model, grid = _their_model(box_px, width), lattice.Lattice(box_px + 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.randn(batch, box_px + 1, box_px + 1)
    rotations = torch.linalg.qr(torch.randn(batch, 3, 3))[0]
    parameters = torch.tensor([[1.5, 15000, 14000, 30, 300, 2.7, 0.1, 0]]).repeat(batch, 1)

    def step() -> None:
        train_vae.train_batch(
            model,
            grid,
            images,
            None,
            rotations,
            torch.randn(batch, 2),
            optimiser,
            0.25,
            ctf_params=parameters,
        )

    return step


# ------------------------------------------------------------------------- in our interpreter


class Peer:
    """cryoDRGN's interpreter, running `worker`."""

    def __init__(self, python: str, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [python, str(Path(__file__).resolve()), "--worker", str(folder)]
        self._log = (folder / "cryodrgn.log").open("w")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, request: str) -> float:
        """Return the CPU seconds that a request took there."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SystemExit("the other interpreter has no pipes")
        stdin.write(request + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(
                f"cryoDRGN failed at {request!r}: {Path(self._log.name).read_text()[-1500:]}"
            )
        return float(answer)

    def close(self) -> None:
        """End the other process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._log.close()


def relative(ours: Any, theirs: Any) -> float:
    """Return |ours - theirs| / |theirs| in the Euclidean norm."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def show(what: str, **figures: Any) -> None:
    """Print a JSON line."""
    print(json.dumps({"what": what, **figures}), flush=True)


def prepare(folder: Path) -> None:
    """Simulate a set with shifts and CTF, and write the poses that allow for D + 1."""
    from frazil.simulate.dataset import simulate_dataset
    from frazil.simulate.settings import SimulateSettings

    settings = SimulateSettings(num=IMAGES, box_px=BOX_PX, snr=0.5, shift_px=2.0)
    simulate_dataset(settings, folder / "set")
    rotation, shift = pickle.loads((folder / "set" / "poses.pkl").read_bytes())
    scaled = (rotation, shift * (BOX_PX / (BOX_PX + 1)))
    (folder / "poses_scaled.pkl").write_bytes(pickle.dumps(scaled))


def compare_conventions(peer: Peer, folder: Path) -> dict[str, Any]:
    """Print the agreement of each convention; return what cryoDRGN wrote."""
    from frazil.geometry.ctf import ctf
    from frazil.geometry.packing import half_disc, pack_images
    from frazil.geometry.rotations import random_rotations
    from frazil.geometry.shifts import shift_phase
    from frazil.geometry.window import soft_window
    from frazil.io.mrc import read_header, read_images

    generator = torch.Generator().manual_seed(0)
    disc = half_disc(BOX_PX)
    k = torch.stack([disc.kx, disc.ky], dim=1).float()
    draws = torch.rand(8, 8, generator=generator)
    low = torch.tensor([0.8, 5000, 5000, 0, 100, 0.01, 0.05, 0])
    high = torch.tensor([4.0, 30000, 30000, 180, 300, 2.7, 0.2, 120])
    parameters = low + draws * (high - low)
    images = torch.from_numpy(
        read_images(read_header(folder / "set" / "particles.mrcs"), np.arange(BATCH))
    )
    shifts = torch.randn(BATCH, 2, generator=generator) * 3
    rotations = random_rotations(BATCH, generator).float()
    z = torch.randn(BATCH, ZDIM, generator=generator)
    np.savez(
        folder / "conventions.npz",
        k=k.numpy(),
        ctf_parameters=parameters.numpy(),
        images=images.numpy(),
        shifts_px=shifts.numpy(),
        rotations=rotations.numpy(),
        z=z.numpy(),
    )
    peer.ask("conventions")
    theirs = dict(np.load(folder / "their_conventions.npz"))

    show("ctf", relative_error=relative(ctf(disc.kx, disc.ky, parameters, BOX_PX), theirs["ctf"]))
    show("window", relative_error=relative(soft_window(BOX_PX), theirs["window"]))

    small = half_disc(CROP_PX)
    inner = (small.kx < CROP_PX // 2) & (small.ky.abs() < CROP_PX // 2)
    ours = pack_images(images, small)
    cropped = torch.from_numpy(theirs["cropped"][:BATCH])
    show(
        "fourier crop without Nyquist",
        relative_error=relative(ours[:, inner], pack_images(cropped, small)[:, inner]),
    )
    moved = pack_images(images, disc) * shift_phase(disc.kx, disc.ky, shifts, BOX_PX)
    show("translation", relative_error=relative(moved, _packed(theirs["moved"], disc)))

    model = our_model(theirs)
    side = BOX_PX + 1
    column, row = (theirs["coordinates"][:, :2].astype(int) + BOX_PX // 2).T
    full = np.zeros((BATCH, side, side), np.float32)
    full[:, row, column] = theirs["slices"]
    with torch.no_grad():
        slices = model.decode_slices(rotations, z)
    show("decoder slices", relative_error=relative(slices, _packed(full, disc)))
    compare_volume(theirs, z[0])
    return theirs


def compare_volume(theirs: dict[str, Any], z: torch.Tensor) -> None:
    """Print the agreement of a volume at one latent, 0 < |k| < D/2, where both define it."""
    from frazil.analysis.volumes import TrainedGrid, evaluate_volume

    ours = evaluate_volume(our_model(theirs), z, TrainedGrid(BOX_PX, None, SCALE))
    axis = np.fft.fftfreq(BOX_PX, 1 / BOX_PX)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    inside = (radius > 0) & (radius < BOX_PX // 2)
    show(
        "volume (eval_vol), 0 < |k| < D/2",
        relative_error=relative(*(np.fft.fftn(v)[inside] for v in (ours, theirs["volume"]))),
    )


def _packed(hartley: Any, disc: Any) -> Any:
    """Return the half plane of centred Hartley images of odd side."""
    from frazil.geometry.fourier import fourier_from_hartley
    from frazil.geometry.packing import pack

    return pack(fourier_from_hartley(torch.from_numpy(np.asarray(hartley))), disc)


def our_model(theirs: dict[str, Any]) -> Any:
    """Return our model with cryoDRGN's weights.

    The encoder's columns are put from its disc (rows of ky, k and -k apart) into ours, H(k) for
    the half plane, then H(-k).
    """
    from frazil.geometry.packing import half_disc
    from frazil.models.config import ModelConfig
    from frazil.models.vae import VAE

    disc = half_disc(BOX_PX)
    config = ModelConfig(zdim=ZDIM, enc_dim=WIDTH, dec_dim=WIDTH)
    model = VAE(config, disc, torch.Generator())
    place = {tuple(k): i for i, k in enumerate(theirs["coordinates"][:, :2].astype(int).tolist())}
    pairs = list(zip(disc.kx.tolist(), disc.ky.tolist(), strict=True))
    columns = [place[pair] for pair in pairs] + [place[(-x, -y)] for x, y in pairs]
    weights = {"decoder.features.frequencies": theirs["weights.decoder.rand_freqs"] * BOX_PX / 2}
    for ours, name in (("encoder.mlp", "encoder.main"), ("decoder.mlp", "decoder.decoder.main")):
        for layer in range(LAYERS + 2):
            inner = ".linear" if 0 < layer <= LAYERS else ""
            for kind in ("weight", "bias"):
                value = theirs[f"weights.{name}.{2 * layer}{inner}.{kind}"]
                if ours == "encoder.mlp" and layer == 0 and kind == "weight":
                    value = value[:, columns]
                target = "weights" if kind == "weight" else "biases"
                weights[f"{ours}.{target}.{layer}"] = value
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return model


def compare_training(peer: Peer, folder: Path, theirs: dict[str, Any]) -> None:
    """Print the agreement of images as trained, of the loss, and of 20 steps."""
    from frazil.engines.vae.step import batch_losses
    from frazil.io.images import open_particles
    from frazil.loader.prefetch import LoaderSettings, ParticleLoader
    from frazil.models.losses import total_loss
    from frazil.preprocess.inputs import join_pickles
    from frazil.preprocess.pipeline import pack
    from frazil.preprocess.settings import PackSettings

    data = folder / "set"
    table = join_pickles(
        open_particles(data / "particles.mrcs"), str(data / "poses.pkl"), str(data / "ctf.pkl")
    )
    store = pack(table, folder / "p.frz", PackSettings(precision="float32", max_threads=1))
    (folder / "scale.txt").write_text(repr(store.rms()))
    loader = ParticleLoader(store, LoaderSettings(batch_size=IMAGES))
    batch = next(iter(loader.in_order()))
    order = torch.argsort(batch.rows)
    packed = _packed(theirs["hartley"], loader.disc)
    show(
        "images as trained (window, transform, sign)",
        relative_error=relative(batch.coefficients[order][:BATCH] * store.rms(), packed),
    )
    peer.ask("training")
    model = our_model(theirs)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    curve = []
    for step in range(STEPS):
        part = order[torch.arange(step * BATCH, (step + 1) * BATCH) % IMAGES]
        chosen = type(batch)(
            batch.rows[part],
            batch.coefficients[part],
            batch.rotations[part],
            batch.shifts_px[part],
            None if batch.ctf_parameters is None else batch.ctf_parameters[part],
        )
        result = batch_losses(model, chosen, None)
        loss = total_loss(result.error, result.divergence, 1 / ZDIM, len(loader.disc))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        values = (loss, result.error.mean(), result.divergence.mean())
        curve.append([float(value.detach()) for value in values])
    ours = np.array(curve)
    for name, label in (("", ""), ("_as_given", ", its shifts as given")):
        wanted = np.load(folder / f"their_training{name}.npy")
        first = {
            what: [ours[0, i], wanted[0, i]] for i, what in enumerate(("loss", "gen_loss", "kld"))
        }
        worst = float(np.abs(ours[:, 0] / wanted[:, 0] - 1).max())
        show(
            f"vae loss at the same weights{label}",
            relative_error=float(abs(ours[0, 0] / wanted[0, 0] - 1)),
            ours_theirs=first,
        )
        show(f"loss over {STEPS} steps of Adam{label}", largest_relative_difference=worst)


def random_training(box_px: int, width: int, batch: int, lr: float) -> tuple[Any, Any, Any, Any]:
    """Return a model of ours, its optimiser, a batch of noise and a generator."""
    from frazil.geometry.packing import half_disc
    from frazil.geometry.rotations import random_rotations
    from frazil.loader.batches import ParticleBatch
    from frazil.models.config import ModelConfig
    from frazil.models.vae import VAE

    generator = torch.Generator().manual_seed(0)
    disc = half_disc(box_px)
    model = VAE(ModelConfig(zdim=ZDIM, enc_dim=width, dec_dim=width), disc, generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    data = ParticleBatch(
        torch.arange(batch),
        torch.randn(batch, len(disc), dtype=torch.complex64, generator=generator),
        random_rotations(batch, generator).float(),
        torch.randn(batch, 2, generator=generator),
        torch.tensor([[1.5, 15000, 14000, 30, 300, 2.7, 0.1, 0]]).repeat(batch, 1),
    )
    return model, optimiser, data, generator


def compare_speed(peer: Peer, box_px: int, width: int, batch: int, repeats: int) -> None:
    """Print images per CPU-second of a training step of both, in turns."""
    from frazil.engines.vae.step import training_step

    model, optimiser, data, generator = random_training(box_px, width, batch, 1e-4)
    training_step(model, optimiser, data, 0.25, generator)
    peer.ask(f"prepare {box_px} {width} {batch}")
    ours, theirs = [], []
    for _ in range(repeats):
        start = time.process_time()
        training_step(model, optimiser, data, 0.25, generator)
        ours.append(time.process_time() - start)
        theirs.append(peer.ask("step"))
    show(
        "training step",
        box_px=box_px,
        network=f"{width}x{LAYERS}",
        batch=batch,
        ours_images_per_cpu_s=batch / float(np.median(ours)),
        theirs_images_per_cpu_s=batch / float(np.median(theirs)),
        ratio=float(np.median(np.array(theirs) / np.array(ours))),
        ratios=[round(b / a, 2) for a, b in zip(ours, theirs, strict=True)],
    )


def compare_bfloat16() -> None:
    """Print what bfloat16 does to time and loss here, and whether the processor has it."""
    from frazil.engines.vae.device import has_native_bfloat16
    from frazil.engines.vae.step import training_step

    curves, seconds = [], []
    for bfloat16 in (False, True):
        model, optimiser, data, generator = random_training(BOX_PX, 256, 4, LR)
        start = time.process_time()
        curves.append(
            [
                float(training_step(model, optimiser, data, 0.25, generator, bfloat16).error.mean())
                for _ in range(STEPS)
            ]
        )
        seconds.append(time.process_time() - start)
    exact, coarse = np.array(curves)
    show(
        f"bfloat16 against float32, {STEPS} steps",
        native=has_native_bfloat16(torch.device("cpu")),
        speed_ratio=seconds[0] / seconds[1],
        largest_relative_difference=float(np.abs(coarse / exact - 1).max()),
    )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cryodrgn", metavar="PYTHON", help="interpreter that has cryoDRGN")
    parser.add_argument("--worker", metavar="DIR", help="used by the script itself")
    parser.add_argument(
        "--speed", nargs="*", default=["64x256x16"], metavar="DxHxB", help="box, width, batch"
    )
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.worker:
        worker(Path(args.worker))
        return
    if not args.cryodrgn:
        parser.error("--cryodrgn is needed")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        peer = Peer(args.cryodrgn, folder)
        compare_training(peer, folder, compare_conventions(peer, folder))
        for case in args.speed:
            compare_speed(peer, *map(int, case.split("x")), repeats=args.repeats)
        peer.close()
        compare_bfloat16()


if __name__ == "__main__":
    main()
