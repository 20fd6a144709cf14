"""Fourier-crop a stack, the stacks of a .star, or a volume to a smaller box.

An interrupted run with several stacks (--chunk, or a .star) goes on when the same command is given
again. Sums over pixels stay, so grey values grow.

  frazil downsample particles.star --datadir DIR -D 128 -o small/particles.star
  frazil downsample particles.cs --datadir DIR -D 128 -o particles.128.mrcs --chunk 50000
  frazil downsample map.mrc --is-vol -D 128 -o map.128.mrc
"""

import argparse

from frazil.cli.flags import add_settings, read_settings
from frazil.preprocess.downsample_settings import DownsampleSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of downsample."""
    add_settings(parser, DownsampleSettings)


def run(args: argparse.Namespace) -> None:
    """Write the smaller images and say what they are."""
    from frazil.preprocess.downsample import downsample

    lines = downsample(
        read_settings(args, DownsampleSettings), lambda line: print(line, flush=True)
    )
    print("\n".join(lines))
