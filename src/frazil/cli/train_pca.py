"""Fit mean and principal volumes of particles with known poses, and the latent of each particle.

Probabilistic PCA by expectation-maximisation: minutes, without a GPU. The same command in the same
folder goes on after the last pass that was saved (every half minute).

Written into the run folder: mean.mrc, component_K.mrc, half_map_a.mrc, half_map_b.mrc, mask.mrc,
z.npy, precisions.npy, fsc.png, eigenvalues.png, reliability.txt and .json. `frazil analyze` and
`frazil eval_vol` take the folder.

  frazil train_pca particles.frz --zdim 7 -o pca
  frazil train_pca particles.star --zdim 7 --fit 100000 --mixture auto -o pca
"""

import argparse
import shlex
import sys
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings


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
    parser.add_argument("--analysis", action="store_true", help="analyze at the end")


def run(args: argparse.Namespace) -> None:
    """Fit, embed, write."""
    from frazil.engines.pca.mixture_settings import MixtureSettings
    from frazil.engines.pca.settings import DataSettings, ModelSettings, PcaSettings
    from frazil.engines.pca.start import begin_or_resume, check_request, open_store
    from frazil.runs.folder import held

    settings = PcaSettings(
        model=read_settings(args, ModelSettings), data=read_settings(args, DataSettings)
    )
    mixture = None if args.mixture is None else MixtureSettings(components=args.mixture)
    outdir = Path(args.outdir)
    check_request(outdir, settings, args.overwrite)
    store = open_store(settings, outdir, say)
    with held(outdir):
        from frazil.analysis.components import write_plots
        from frazil.engines.pca.loop import fit_all
        from frazil.engines.pca.mixture_files import fit_mixture
        from frazil.engines.pca.outputs import reliability, write_outputs

        command = shlex.join(sys.argv)
        fitting = begin_or_resume(outdir, settings, store, command, args.overwrite, say)
        found = fit_all(fitting)
        table = reliability(fitting, found)
        pixel_size_ang = fitting.run.config["pixel_size_ang"] or 1.0
        write_plots(table, fitting.plan.box_px, pixel_size_ang, outdir)
        for line in write_outputs(fitting, found, table):
            say(line)
        if mixture is not None:
            fit_mixture(fitting.run, mixture, say)
    say(f"{outdir}: mean, {settings.model.zdim} components, latents of {len(found.mean)} particles")
    if args.analysis:
        from frazil.analysis.analyze import analyze_run

        analyze_run(outdir)


def say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)
