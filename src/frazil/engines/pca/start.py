"""How a run of train_pca begins, or goes on.

Owns: the decision between a new run, a continuation and a refusal, the particles of the fit, and
what config.json says. Does not own: the loop (`loop`), the folder's names (`frazil.runs`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frazil import __version__
from frazil.engines import particles
from frazil.engines.distributed import ONE_RANK, Ranks
from frazil.engines.particles import Say
from frazil.engines.pca.loop import WINDOW_ROWS, Fitting, begin_state
from frazil.engines.pca.mask import read_mask
from frazil.engines.pca.memory import check_budget, check_device, device_bytes, needs
from frazil.engines.pca.schedule import Plan
from frazil.engines.pca.settings import PcaSettings, differing_names
from frazil.engines.pca.state import State
from frazil.engines.vae.data import data_digest
from frazil.engines.vae.device import choose_device
from frazil.errors import InputError, OutputExistsError
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.preprocess.settings import PackSettings
from frazil.runs.checkpoint import load_checkpoint
from frazil.runs.folder import Run, is_run
from frazil.store.budget import allowed_bytes, size_text
from frazil.store.reader import ParticleStore

FINISHED = "reliability.json"


def check_request(outdir: Path, settings: PcaSettings, overwrite: bool) -> None:
    """Refuse what can be refused before particles are read or packed.

    Raises
    ------
    InputError : there is no such device.
    OutputExistsError : the folder holds a complete run, or one with other settings.
    """
    choose_device(settings.data.device)
    if is_run(outdir) and not overwrite:
        run = Run.open(outdir)
        _refuse(run, differing_names(settings, run.config.get("settings", {})))
        if (outdir / FINISHED).exists():
            raise OutputExistsError(f"{outdir}: is complete; give --overwrite to begin anew")


def open_store(settings: PcaSettings, outdir: Path, say: Say) -> ParticleStore:
    """Return a store of the input's particles; see `engines.particles.open_store`."""
    data = settings.data
    packing = PackSettings(
        box_px=data.box_px, uninvert_data=data.uninvert_data, precision=data.precision
    )
    return particles.open_store(data, outdir, packing, say)


def begin_or_resume(
    outdir: Path,
    settings: PcaSettings,
    store: ParticleStore,
    command: str,
    overwrite: bool,
    say: Say,
    ranks: Ranks = ONE_RANK,
) -> Fitting:
    """Return a fit in `outdir`: new, or where the run in it was stopped.

    Raises
    ------
    InputError : no poses, too few particles, or a mask that does not fit.
    OutputExistsError : the run was made with other settings or data.
    BudgetError : --memory is too small.
    """
    data, model = settings.data, settings.model
    selected = particles.selected_rows(data, store, say)
    loader = ParticleLoader(
        store, LoaderSettings(batch_size=1, window_rows=WINDOW_ROWS), selected, data.box_px
    )
    say(particles.rows_used(loader, selected).line("used"))
    if loader.columns.ctf_parameters is None:
        say("no CTF is known: images are taken as they are")
    rows = np.sort(loader.columns.rows.numpy())
    if len(np.unique(rows)) != len(rows):
        raise InputError(f"--ind {data.ind}: names a row twice; latents need distinct rows")
    fit_rows = chosen_rows(rows, model.fit, model.seed)
    mask = None if model.mask is None else read_mask(model.mask, loader.box_px)
    plan = Plan.of(loader.box_px, model, mask)
    device = rank_device(data.device, ranks)
    threads = data.max_threads if device.type == "cpu" else 1
    wanted = needs(plan.geometry(loader.box_px), model.zdim, len(fit_rows), len(rows), threads)
    left = check_budget(wanted, allowed_bytes(data.memory))
    say(
        f"{len(fit_rows)} of {len(rows)} particles of {loader.box_px} px are fitted; memory: sums "
        f"{size_text(wanted.sums)}, volumes {size_text(wanted.volumes)}, results "
        f"{size_text(wanted.results)}, up to {size_text(left)} for particles"
    )
    say(device_line(device, plan))
    config = _config(settings, loader, command)
    state = begin_state(store, plan, loader.norm_scale)
    journal_bytes = 0
    if is_run(outdir) and not overwrite:
        run = Run.open(outdir)
        if run.config.get("data_digest") != config["data_digest"]:
            _refuse(run, ["the particles, poses, CTF or --ind"])
        run.config = config
        run.write_config()
        run.write_rows(rows)
        if run.checkpoint_path.is_file():
            tensors, facts = load_checkpoint(run.checkpoint_path)
            state, journal_bytes = State.restored(tensors, facts["state"]), facts["journal_bytes"]
            say(f"{outdir}: goes on after pass {state.step}")
    else:
        run = Run.create(outdir, config, overwrite)
        run.write_rows(rows)
    return Fitting(
        run,
        store,
        plan,
        state,
        rows,
        fit_rows,
        loader.norm_scale,
        left,
        threads,
        journal_bytes,
        ranks,
        device,
    )


def rank_device(name: str, ranks: Ranks) -> torch.device:
    """Return the device that --device names; the ranks of a machine share out its GPUs.

    Raises
    ------
    InputError : there is no such device.
    """
    device = choose_device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", ranks.local % torch.cuda.device_count())
    return device


def device_line(device: torch.device, plan: Plan) -> str:
    """Return what is said of the device, after a look at its memory.

    Raises
    ------
    BudgetError : a GPU has too little memory free.
    """
    if device.type == "cpu":
        return "the first pass of each kind compiles its loops (seconds, once on this machine)"
    wanted = device_bytes(plan.geometry(plan.box_px), plan.zdim)
    check_device(wanted, torch.cuda.mem_get_info(device)[0], str(device))
    return f"passes run on {device} and take {size_text(wanted)} of its memory"


def chosen_rows(rows: NDArray[np.int64], count: int | None, seed: int) -> NDArray[np.int64]:
    """Return the rows of the fit: all, or a random subset of `count`, sorted.

    Raises
    ------
    InputError : fewer than two particles.
    """
    if len(rows) < 2:
        raise InputError(f"{len(rows)} particle is too few for two half sets; give at least 2")
    if count is None or count >= len(rows):
        return rows
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(rows, count, replace=False))


def _refuse(run: Run, differing: list[str]) -> None:
    """Raise OutputExistsError when a run cannot be continued because of these differences."""
    if differing:
        raise OutputExistsError(
            f"{run.path}: holds a run with other settings: {', '.join(differing)}; "
            "choose another folder, or --overwrite"
        )


def _config(settings: PcaSettings, loader: ParticleLoader, command: str) -> dict[str, Any]:
    """Return what config.json holds."""
    return {
        "program": "frazil train_pca",
        "version": __version__,
        "command": command,
        "settings": settings.to_json(),
        "model": {"zdim": settings.model.zdim},
        "store": str(loader.store.path.resolve()),
        "particles": loader.row_count,
        "rows": "rows.npy",
        "box_px": loader.box_px,
        "pixel_size_ang": loader.pixel_size_ang,
        "norm": [0.0, loader.norm_scale],
        "seed": settings.model.seed,
        "data_digest": data_digest(loader),
    }
