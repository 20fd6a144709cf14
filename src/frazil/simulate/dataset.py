"""A whole simulated data set: images block by block, then metadata and truth.

Owns: the pipeline from settings to images (`Simulation`) and the folder it is written into
(`simulate_dataset`). Does not own: the physics (`images`, `noise`), the metadata (`export`).

The blocks of rows are fixed by the settings, so the same settings give the same bytes, whatever the
number of threads, and memory is bounded whatever the number of images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from frazil import __version__
from frazil.errors import InputError, OutputExistsError
from frazil.io.atomic import atomic_path, write_npy_atomic, write_text_atomic
from frazil.io.mrc_writer import StackWriter, write_volume
from frazil.simulate.export import (
    METADATA_NAMES,
    Stacks,
    divide_into_stacks,
    write_cryodrgn_pickles,
    write_cryosparc_cs,
    write_relion_star,
)
from frazil.simulate.images import Grid, project, render_volume, to_pixels, transfer
from frazil.simulate.motions import (
    LinkerMotion,
    Motion,
    composition_motion,
    hinge_motion,
    homogeneous,
    mixture_motion,
)
from frazil.simulate.noise import (
    PARTICLE,
    group_noise_scale,
    noise_amplitude,
    noise_images,
    outlier_image,
)
from frazil.simulate.sampling import Draw, draw_particles, star_order
from frazil.simulate.settings import SimulateSettings
from frazil.simulate.structures import (
    Molecule,
    built_in_assembly,
    built_in_molecule,
    built_in_species,
    read_structure,
)

Images = NDArray[np.float32]
Item = TypeVar("Item")

_BLOCK_BYTES = 64 << 20
_BLOCK_ROWS = 32
_PILOT_IMAGES = 512
# Of a mixture, when --states does not say.
SPECIES = 12


@dataclass(frozen=True)
class Simulation:
    """Everything that is known before the first image is made.

    Attributes
    ----------
    settings : what was asked for.
    molecule, motion : what is imaged.
    grid : box, pixel size, Gaussian width.
    draw : pose, conformation, CTF of each particle.
    """

    settings: SimulateSettings
    molecule: Molecule
    motion: Motion
    grid: Grid
    draw: Draw

    @property
    def block_rows(self) -> int:
        """Rows that are projected together; their cosine tables take at most 64 MB."""
        per_row = 16 * (self.grid.half + 1) * len(self.molecule.positions)
        return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // per_row))

    def clean_images(self, rows: NDArray[np.int64]) -> Images:
        """Return the noise-free images (B, D, D) of some rows, outliers shown as particles."""
        draw = self.draw
        positions, weights = self.motion.place(draw.coordinate[rows])
        to_image = torch.from_numpy(draw.rotation[rows][:, :2]).transpose(1, 2)  # (B, 3, 2)
        shift_ang = torch.from_numpy(draw.shift_px[rows] * self.grid.pixel_size_ang)
        # The shift centres the particle, so the particle lies at minus the shift.
        points_ang = torch.from_numpy(positions) @ to_image - shift_ang[:, None]  # (B, A, 2)
        transform = project(points_ang, torch.from_numpy(weights), self.grid)
        ctf = torch.from_numpy(draw.ctf[rows]) if self.settings.ctf else None
        transform *= transfer(ctf, torch.from_numpy(draw.gain[rows]), self.grid)
        images: Images = to_pixels(transform, self.grid).numpy()
        return images

    def volume(self, coordinate: float | list[float] | NDArray[np.float64]) -> Images:
        """Return the true density (D, D, D) at a conformation, in the units of the images."""
        positions, weights = self.motion.place(np.asarray(coordinate, dtype=np.float64)[None])
        return render_volume(positions[0], weights[0], self.grid)

    def clean_variance(self) -> float:
        """Return the mean pixel variance of the clean images, from 512 rows spread over the set."""
        rows = np.flatnonzero(self.draw.outlier == PARTICLE)
        if not len(rows):
            rows = np.arange(len(self.draw))
        spread = np.unique(np.linspace(0, len(rows) - 1, _PILOT_IMAGES).astype(np.int64))
        variances = [
            images.var(axis=(1, 2), dtype=np.float64)
            for images in _in_order(self.clean_images, self._blocks(rows[spread]))
        ]
        return float(np.concatenate(variances).mean())

    def noise_std(self, clean_variance: float) -> float:
        """Return the standard deviation of the noise at the SNR asked for."""
        return float(np.sqrt(clean_variance / self.settings.snr))

    def observed_blocks(self, clean_variance: float) -> Iterator[Images]:
        """Yield the noisy images (B, D, D) in row order, outliers in their places.

        Blocks are made side by side on as many threads as torch is set to use.
        """
        amplitude = noise_amplitude(self.grid, self.settings.noise)
        noise_std = self.noise_std(clean_variance)
        unit = noise_std or clean_variance**0.5
        group_scale = group_noise_scale(self.settings.group_noise)

        def observe(rows: NDArray[np.int64]) -> Images:
            images = self.clean_images(rows)
            self._put_outliers(images, rows, unit)
            if noise_std > 0:
                noise = noise_images(self.settings.seed, rows, self.grid.box_px, amplitude)
                deviation = noise_std * group_scale[self.draw.optics_group[rows]]
                images += deviation.astype(np.float32)[:, None, None] * noise
            return images

        return _in_order(observe, self._blocks(np.arange(len(self.draw))))

    def _put_outliers(self, images: Images, rows: NDArray[np.int64], unit: float) -> None:
        """Replace the images of outlier rows, in place; `unit` is the noise's deviation."""
        kinds = self.draw.outlier[rows]
        for i in np.flatnonzero(kinds != PARTICLE):
            shown = outlier_image(self.settings.seed, int(rows[i]), int(kinds[i]), self.grid.box_px)
            images[i] = np.float32(unit) * shown

    def _blocks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield rows in blocks of `block_rows`."""
        for start in range(0, len(rows), self.block_rows):
            yield rows[start : start + self.block_rows]


def build_simulation(settings: SimulateSettings) -> Simulation:
    """Return the simulation of some settings, all random draws made but for the noise.

    Raises
    ------
    MissingFileError, InputError
        structure, moving part, states, box or pixel size that cannot be used.
    """
    if settings.box_px % 2:
        raise InputError(f"-D {settings.box_px}: the box must be even; give {settings.box_px + 1}")
    if settings.stacks > settings.num:
        raise InputError(f"--stacks {settings.stacks}: more stacks than -n {settings.num} images")
    molecule = _choose_molecule(settings)
    motion = _choose_motion(settings, molecule)
    apix_ang = settings.apix_ang or _fitting_pixel_ang(motion, settings.box_px)
    sigma_ang = settings.sigma_ang or max(2.0, apix_ang)
    grid = Grid(settings.box_px, apix_ang, sigma_ang)
    return Simulation(settings, molecule, motion, grid, draw_particles(settings, motion, apix_ang))


def simulate_dataset(settings: SimulateSettings, out: Path) -> dict[str, Any]:
    """Write a simulated set into the folder `out`; return what simulation.json says.

    Written are particles.mrcs (or particles_000.mrcs ...), particles.star, particles.cs, poses.pkl,
    ctf.pkl, truth/ (vol_000.mrc ..., volume_conformations.npy, conformations.npy, truth.npz) and at
    last simulation.json. Every table but a shuffled .star is in the order of the stack rows.

    Raises
    ------
    OutputExistsError
        the folder holds a complete set, or files of these names that are of no set begun here, and
        `overwrite` is not set.
    MissingFileError, InputError, BudgetError
        as `build_simulation`, or a full disk.
    """
    simulation = build_simulation(settings)
    stacks = divide_into_stacks(settings.num, settings.stacks)
    _clear(out, settings.overwrite, [*stacks.names, *METADATA_NAMES])
    (out / "truth").mkdir(parents=True, exist_ok=True)
    variance = simulation.clean_variance()
    measured = _write_stacks(simulation, stacks, variance, out)
    files = [*stacks.names, *_write_metadata(simulation, stacks, out)]
    files += _write_truth(simulation, out / "truth")
    report = _report(simulation, variance, measured, files)
    write_text_atomic(
        out / "simulation.json", msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    )
    return report


def _in_order(make: Callable[[Item], Images], items: Iterable[Item]) -> Iterator[Images]:
    """Yield make(item) of every item, in order, a few items ahead on several threads.

    Each thread works on an item alone (torch on one thread inside it): threads that share one
    product wait for each other and crawl on a busy machine.
    """
    threads = torch.get_num_threads()
    pending: deque[Future[Images]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for item in items:
                pending.append(pool.submit(make, item))
                if len(pending) > threads + 1:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        torch.set_num_threads(threads)


def _clear(out: Path, overwrite: bool, names: list[str]) -> None:
    """Refuse a complete set, or with `overwrite` remove the files that it lists.

    Refuse as well to write over files `names` of others; a set begun here has its truth folder.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: is a file; give the name of a folder")
    done = out / "simulation.json"
    if not done.exists():
        foreign = [] if overwrite or (out / "truth").is_dir() else names
        for name in foreign:
            if (out / name).exists():
                raise OutputExistsError(
                    f"{out / name}: exists already, and is of no simulated set; give another "
                    "folder, or --overwrite"
                )
        return
    if not overwrite:
        raise OutputExistsError(f"{out}: holds a complete simulated set; give --overwrite")
    try:
        listed = msgspec.json.decode(done.read_bytes(), type=dict[str, Any]).get("files", [])
    except msgspec.DecodeError:
        listed = []
    done.unlink()
    for name in listed:
        path = (out / str(name)).resolve()
        if path.is_relative_to(out.resolve()):
            path.unlink(missing_ok=True)


def _choose_molecule(settings: SimulateSettings) -> Molecule:
    """Return the molecule, or the species of a mixture, that the settings name."""
    if settings.structure is None:
        if settings.moving is not None:
            raise InputError("--moving: names a part of a structure file; give --structure")
        if settings.motion == "mixture":
            return built_in_species(settings.states or SPECIES)
        return built_in_assembly() if settings.molecule == "assembly" else built_in_molecule()
    if settings.motion == "mixture":
        raise InputError("--motion mixture: its species are built in; leave out --structure")
    if settings.molecule != "arm":
        raise InputError(
            f"--molecule {settings.molecule}: is built in; leave out it, or --structure"
        )
    return read_structure(Path(settings.structure), settings.coarse, settings.moving)


def _choose_motion(settings: SimulateSettings, molecule: Molecule) -> Motion:
    """Return the motion that the settings name."""
    if settings.motion in ("hinge", "linker"):
        hinge = hinge_motion(molecule, settings.swing_deg, settings.states)
        return hinge if settings.motion == "hinge" else LinkerMotion(hinge)
    if settings.motion == "mixture":
        return mixture_motion(molecule, settings.state_weights or None)
    if settings.motion == "composition":
        return composition_motion(molecule, settings.states, settings.state_weights or None)
    return homogeneous(molecule)


def _radius_ang(motion: Motion) -> float:
    """Return the largest distance of a point from the centre of the box over the motion."""
    positions, _ = motion.place(motion.grid(12))
    return float(np.linalg.norm(positions, axis=-1).max())


def _fitting_pixel_ang(motion: Motion, box_px: int) -> float:
    """Return the pixel size, to 0.01 A, at which the molecule spans two thirds of the box."""
    return max(0.01, round(3.0 * _radius_ang(motion) / box_px, 2))


def _write_stacks(
    simulation: Simulation, stacks: Stacks, variance: float, out: Path
) -> dict[str, float]:
    """Write all images; return the mean and variance of all pixels of the particles."""
    grid = simulation.grid
    box = (grid.box_px, grid.box_px)
    sums = np.zeros(2)
    with (
        ExitStack() as open_stacks,
        tqdm(total=len(simulation.draw), unit="img", mininterval=1.0) as bar,
    ):
        writers = [
            open_stacks.enter_context(
                StackWriter(out / name, box, stacks.count(i), grid.pixel_size_ang)
            )
            for i, name in enumerate(stacks.names)
        ]
        row = 0
        for images in simulation.observed_blocks(variance):
            owner = stacks.stack[row : row + len(images)]
            for i in np.unique(owner):
                writers[i].write(images[owner == i])
            sums += images.sum(dtype=np.float64), float(np.vdot(images, images))
            row += len(images)
            bar.update(len(images))
    mean, square = sums / (len(simulation.draw) * grid.box_px**2)
    return {"pixel_mean": float(mean), "pixel_std": float(max(0.0, square - mean**2) ** 0.5)}


def _write_metadata(simulation: Simulation, stacks: Stacks, out: Path) -> list[str]:
    """Write .star, .cs and pickles; return their names."""
    draw, grid, with_ctf = simulation.draw, simulation.grid, simulation.settings.ctf
    order = star_order(simulation.settings)
    write_relion_star(out / "particles.star", draw, grid, stacks, order, with_ctf)
    write_cryosparc_cs(out / "particles.cs", draw, grid, stacks, with_ctf)
    return ["particles.star", "particles.cs", *write_cryodrgn_pickles(out, draw, grid, with_ctf)]


def _write_truth(simulation: Simulation, folder: Path) -> list[str]:
    """Write true volumes and the draw of every particle; return names relative to the set."""
    draw = simulation.draw
    coordinates = simulation.motion.grid(simulation.settings.volumes)
    names = [f"vol_{i:03d}.mrc" for i in range(len(coordinates))]
    volumes = _in_order(simulation.volume, coordinates.tolist())
    for name, volume in zip(names, volumes, strict=True):
        write_volume(folder / name, volume, simulation.grid.pixel_size_ang)
    write_npy_atomic(folder / "volume_conformations.npy", coordinates)
    write_npy_atomic(folder / "conformations.npy", draw.coordinate)
    with atomic_path(folder / "truth.npz") as path, path.open("wb") as file:
        np.savez(
            file,
            rotation=draw.rotation,
            shift_px=draw.shift_px,
            conformation=draw.coordinate,
            contrast=draw.gain,
            outlier=draw.outlier,
            ctf=draw.ctf,
            half_set=draw.half_set,
            optics_group=draw.optics_group,
            uid=draw.uid,
            star_order=star_order(simulation.settings),
        )
    names += ["volume_conformations.npy", "conformations.npy", "truth.npz"]
    return [f"truth/{name}" for name in names]


def _report(
    simulation: Simulation, variance: float, measured: dict[str, float], files: list[str]
) -> dict[str, Any]:
    """Return the content of simulation.json; an infinite SNR is written as null."""
    grid, draw = simulation.grid, simulation.draw
    notes = []
    radius_ang = _radius_ang(simulation.motion) + 2 * grid.sigma_ang
    if radius_ang > 0.85 * grid.box_ang / 2:
        notes.append(
            f"the molecule reaches {radius_ang:.0f} A from its centre, past 0.85 of the half box "
            f"({0.85 * grid.box_ang / 2:.0f} A): a window will cut it; use a larger -D or --apix"
        )
    return {
        "program": f"frazil {__version__}",
        "settings": simulation.settings,
        "pixel_size_ang": grid.pixel_size_ang,
        "sigma_ang": grid.sigma_ang,
        "points": len(simulation.molecule.positions),
        "motion": simulation.motion.describe(),
        "clean_variance": variance,
        "noise_std": simulation.noise_std(variance),
        **measured,
        "outliers": int(np.count_nonzero(draw.outlier)),
        "contrast": "light particles (minus the CTF), blob/sign +1",
        "files": files,
        "notes": notes,
    }
