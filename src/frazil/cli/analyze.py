"""Analyse an epoch of a run: clusters, embeddings, volumes, plots and a report.

Written into RUN/analyze.N: report.html (open it in a browser), z_pca.png, umap.png, umap.npy,
learning_curve.png, kmeansK/ (labels.npy, centers.txt, centers_ind.txt, vol_001.mrc ...) and pc1/,
pc2/ ... (z_values.txt, vol_001.mrc ...). Where `frazil mixture` was run, its components take the
place of k-means: mixtureM/.

  frazil analyze 00_vae 20
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of analyze."""
    from frazil.analysis.settings import AnalyzeSettings, VolumeSettings

    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("epoch", type=int, nargs="?", metavar="N", help="epoch (default: last)")
    parser.add_argument("-o", "--outdir", type=Path, help="folder (default: RUN/analyze.N)")
    add_settings(parser, AnalyzeSettings)
    add_settings(parser, VolumeSettings)


def run(args: argparse.Namespace) -> None:
    """Analyse and write the report."""
    from frazil.analysis.analyze import analyze_run
    from frazil.analysis.settings import AnalyzeSettings, VolumeSettings

    if args.epoch is not None and args.epoch < 1:
        raise InputError(f"epoch {args.epoch}: epochs count from 1")
    analyze_run(
        args.run,
        args.epoch,
        read_settings(args, AnalyzeSettings),
        read_settings(args, VolumeSettings),
        args.outdir,
        lambda line: print(line, flush=True),
    )
