"""Multiply the transform of each image by the sign of its CTF.

With the CTF of RELION, cryoSPARC and cryoDRGN, dark particles become light.

  frazil phase_flip particles.star ctf.pkl --datadir DIR -o flipped.mrcs
"""

import argparse

from frazil.cli.flags import add_settings, read_settings
from frazil.io.tool_settings import PhaseFlipSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of phase_flip."""
    add_settings(parser, PhaseFlipSettings)


def run(args: argparse.Namespace) -> None:
    """Write the stack and say what it is."""
    from frazil.preprocess.stack_tools import phase_flip_stack

    settings = read_settings(args, PhaseFlipSettings)
    print("\n".join(phase_flip_stack(settings, lambda line: print(line, flush=True))))
