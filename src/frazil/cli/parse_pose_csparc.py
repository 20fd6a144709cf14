"""Write pose.pkl (rotations, shifts as fractions of the box) from a cryoSPARC .cs file.

frazil parse_pose_csparc particles.cs -o pose.pkl
"""

import argparse

from frazil.cli.flags import add_settings, read_settings
from frazil.io.parse_settings import PoseCsSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of parse_pose_csparc."""
    add_settings(parser, PoseCsSettings)


def run(args: argparse.Namespace) -> None:
    """Write the poses and show the arithmetic of the first one."""
    from frazil.io.parse_poses import write_cs_poses

    for line in write_cs_poses(read_settings(args, PoseCsSettings)):
        print(line)
