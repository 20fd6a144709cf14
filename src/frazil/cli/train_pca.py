"""Fit mean and principal volumes of particles with known poses, and the latent of each particle.

Probabilistic PCA by expectation-maximisation: minutes, without a GPU or on one. The same command in
the same folder goes on after the last pass that was saved (every half minute).

Written into the run folder: mean.mrc, component_K.mrc, half_map_a.mrc, half_map_b.mrc, mask.mrc,
z.npy, precisions.npy, fsc.png, eigenvalues.png, reliability.txt and .json. `frazil analyze` and
`frazil eval_vol` take the folder.

  frazil train_pca particles.frz --zdim 7 -o pca
  frazil train_pca particles.star --zdim 7 --fit 100000 -o pca
  torchrun --nproc-per-node 4 -m frazil.cli.main train_pca particles.frz --zdim 7 -o pca
  frazil train_pca particles.star --zdim 7 --fit 100000 --mixture auto -o pca
"""

import argparse
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from frazil.cli.flags import add_settings, read_settings

if TYPE_CHECKING:
    from frazil.engines.distributed import Ranks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of train_pca."""
    from frazil.engines.pca.settings import DataSettings, ModelSettings

    parser.add_argument("-o", "--outdir", required=True, metavar="DIR", help="folder of the run")
    for settings in (DataSettings, ModelSettings):
        add_settings(parser, settings)
    parser.add_argument("--overwrite", action="store_true", help="remove the run in DIR first")
    parser.add_argument(
        "--mixture", metavar="M|auto", help="fit a Gaussian mixture to the latents (frazil mixture)"
    )
    parser.add_argument("--no-preflight", action="store_true", help="do not check before training")
    parser.add_argument("--analysis", action="store_true", help="analyze at the end")


def run(args: argparse.Namespace) -> None:
    """Fit, embed, write."""
    from frazil.engines.distributed import joined

    with joined() as ranks:
        _run(args, ranks)


def _run(args: argparse.Namespace, ranks: "Ranks") -> None:
    """Do the part of one rank; the first one writes and speaks."""
    from frazil.analysis.preflight import show_preflight
    from frazil.engines.particles import selected_rows
    from frazil.engines.pca.mixture_settings import MixtureSettings
    from frazil.engines.pca.settings import DataSettings, ModelSettings, PcaSettings
    from frazil.engines.pca.start import begin_or_resume, check_request, open_store
    from frazil.runs.folder import held

    settings = PcaSettings(
        model=read_settings(args, ModelSettings), data=read_settings(args, DataSettings)
    )
    mixture = None if args.mixture is None else MixtureSettings(components=args.mixture)
    outdir, say = Path(args.outdir), _say if ranks.first else _say_nothing
    overwrite = args.overwrite and ranks.first  # the others find the run that the first began
    ranks.first_alone(lambda: check_request(outdir, settings, args.overwrite))
    store = ranks.first_alone(lambda: open_store(settings, outdir, say))
    if ranks.first and not args.no_preflight:
        show_preflight(store, say, selected_rows(settings.data, store, _say_nothing))
    with held(outdir) if ranks.first else nullcontext():
        from frazil.analysis.components import write_plots
        from frazil.engines.pca.loop import fit_all
        from frazil.engines.pca.mixture_files import fit_mixture
        from frazil.engines.pca.outputs import reliability, write_outputs

        line = shlex.join(sys.argv)
        fitting = ranks.first_alone(
            lambda: begin_or_resume(outdir, settings, store, line, overwrite, say, ranks)
        )
        found = fit_all(fitting)
        if not ranks.first:
            return
        table = reliability(fitting, found)
        pixel_size_ang = fitting.run.config["pixel_size_ang"] or 1.0
        write_plots(table, fitting.plan.box_px, pixel_size_ang, outdir)
        for said in write_outputs(fitting, found, table):
            say(said)
        if mixture is not None:
            fit_mixture(fitting.run, mixture, say)
    say(f"{outdir}: mean, {settings.model.zdim} components, latents of {len(found.mean)} particles")
    if args.analysis:
        from frazil.analysis.analyze import analyze_run

        analyze_run(outdir)


def _say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)


def _say_nothing(line: str) -> None:
    """Leave it to the first rank."""
