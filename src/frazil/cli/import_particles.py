"""Say what is in a particle set and where each field came from; write it as one file with -o.

SRC is the folder of a cryoSPARC job, a .csg, a .cs with its passthrough files, or a .star.

  frazil import P12/J24
  frazil import P12/J24 --class 1 -o class1.cs
  frazil import P12/exports/groups/J24_particles/J24_particles_exported.csg -o particles.cs
  frazil import Refine3D/job020/run_data.star -o particles.star
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.paths import PlaceSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of import."""
    parser.add_argument("source", type=Path, metavar="SRC", help="particle file, or job folder")
    parser.add_argument(
        "-o",
        type=Path,
        metavar="OUT",
        help="X.cs: all fields, joined on uid; X.star: with the stacks' paths as found",
    )
    add_settings(parser, PlaceSettings)
    parser.add_argument(
        "--class",
        dest="class_index",
        type=int,
        metavar="N",
        help="class of a cryoSPARC job that has several",
    )


def run(args: argparse.Namespace) -> None:
    """Print the report, and write the file."""
    from frazil.preprocess.importing import import_particles

    places = read_settings(args, PlaceSettings).places()
    for line in import_particles(args.source, places, args.class_index, args.o):
        print(line, flush=True)
