"""Write pose.pkl (rotations, shifts as fractions of the box) from a RELION .star file.

frazil parse_pose_star particles.star -o pose.pkl -D 300
"""

import argparse

from frazil.cli.flags import add_settings, read_settings
from frazil.io.parse_settings import PoseStarSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of parse_pose_star."""
    add_settings(parser, PoseStarSettings)


def run(args: argparse.Namespace) -> None:
    """Write the poses and show the arithmetic of the first one."""
    from frazil.io.parse_poses import write_star_poses

    for line in write_star_poses(read_settings(args, PoseStarSettings)):
        print(line)
