"""Train cryoDRGN's variational autoencoder on particles with known poses.

The same command in the same folder goes on where it was stopped; a larger -n trains on.

  frazil train_vae particles.frz -o run --zdim 8
  frazil train_vae particles.frz -o run --zdim 4 --init pca --decoder basis
  frazil train_vae particles.128.txt --poses pose.pkl --ctf ctf.pkl --zdim 8 -n 25 -o run >> run.log
"""

import argparse
import shlex
import sys
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of train_vae."""
    from frazil.engines.vae.settings import (
        DataSettings,
        FormerSettings,
        ModelSettings,
        TrainingSettings,
    )

    parser.add_argument("-o", "--outdir", required=True, metavar="DIR", help="folder of the run")
    for settings in (DataSettings, ModelSettings, TrainingSettings, FormerSettings):
        add_settings(parser, settings)
    parser.add_argument("--overwrite", action="store_true", help="remove the run in DIR first")
    parser.add_argument("--no-preflight", action="store_true", help="do not check before training")
    parser.add_argument("--no-analysis", action="store_true", help="do not analyze at the end")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the networks, too")


def run(args: argparse.Namespace) -> None:
    """Train, then analyze."""
    from frazil.analysis.preflight import show_preflight, used_rows
    from frazil.engines.plan import training_plan
    from frazil.engines.vae.data import make_loader, open_store, packing_meanwhile, settle
    from frazil.engines.vae.loop import train
    from frazil.engines.vae.settings import (
        DataSettings,
        FormerSettings,
        ModelSettings,
        TrainingSettings,
        VaeSettings,
    )
    from frazil.engines.vae.start import begin_or_resume, check_request
    from frazil.engines.vae.warm import with_components
    from frazil.runs.folder import held

    settings = VaeSettings(
        model=read_settings(args, ModelSettings),
        training=read_settings(args, TrainingSettings),
        data=read_settings(args, DataSettings),
    )
    for line in read_settings(args, FormerSettings).remarks():
        say(line)
    settings, outdir = with_components(settle(settings, say)), Path(args.outdir)
    check_request(outdir, settings, args.overwrite)
    store, command = open_store(settings, outdir, say), shlex.join(sys.argv)
    loader = make_loader(store, settings, say)
    for line in training_plan(loader, settings, outdir):
        say(line)
    if not args.no_preflight:
        show_preflight(store, say, used_rows(loader), loader.settings.memory_bytes)
    packing = packing_meanwhile(store, settings, outdir, command)
    with held(outdir):
        training = begin_or_resume(outdir, settings, loader, command, args.overwrite, packing)
        for line in training.describe(args.verbose):
            say(line)
        train(training)
    say(f"{outdir}: {settings.training.epochs} epochs are done")
    if not args.no_analysis:
        from frazil.analysis.analyze import analyze_run

        analyze_run(outdir)


def say(line: str) -> None:
    """Print a line of the log at once."""
    print(line, flush=True)
