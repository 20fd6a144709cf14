"""Write a RELION .star file from particles, CTF, poses and a selection.

A .star is copied with all its columns, byte for byte; --relion30 puts the optics table of one into
the rows. Image names stay as they are unless --full-path.

  frazil write_star particles.mrcs --ctf ctf.pkl --poses pose.pkl --ind ind.pkl -o good.star
  frazil write_star particles.star --ind ind.pkl -o good.star
"""

import argparse

from frazil.cli.flags import add_settings, read_settings
from frazil.io.tool_settings import WriteStarSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of write_star."""
    add_settings(parser, WriteStarSettings)


def run(args: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    from frazil.io.star_input import write_particle_star

    print("\n".join(write_particle_star(read_settings(args, WriteStarSettings))))
