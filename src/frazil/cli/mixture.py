"""Fit a Gaussian mixture to the latents of a finished run of train_pca: discrete states.

It is fitted to what the images say of their latents, not to the latents' best guesses: an image of
which little can be told counts little. The images are not read: some seconds for 100,000 particles.

Written into the run folder: mixture.npz (weights, means, covariances, responsibilities, labels and
z, the particles' latents under the mixture) and mixture.json. `frazil analyze` then shows its
components in place of k-means; `frazil train_pca --mixture auto` fits one at the end.

  frazil mixture pca
  frazil mixture pca --components 4
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of mixture."""
    from frazil.engines.pca.mixture_settings import MixtureSettings

    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    add_settings(parser, MixtureSettings)


def run(args: argparse.Namespace) -> None:
    """Fit and write."""
    from frazil.engines.pca.mixture_files import fit_mixture
    from frazil.engines.pca.mixture_settings import MixtureSettings
    from frazil.runs.folder import Run, held

    settings = read_settings(args, MixtureSettings)
    found = Run.open(args.run)
    with held(args.run):
        fit_mixture(found, settings, lambda line: print(line, flush=True))
