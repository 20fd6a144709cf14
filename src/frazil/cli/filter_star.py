"""Write the particles of a .star file that a selection names.

Optics table, every column, comments and the text of each row stay byte for byte.

  frazil filter_star particles.star --ind ind.pkl -o good.star
  frazil filter_star tilts.star --et --ind particles.pkl -o good.star
  frazil filter_star particles.star --ind ind.pkl -m -o by_micrograph
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of filter_star."""
    parser.add_argument("input", type=Path, metavar="STAR", help=".star file to take rows of")
    parser.add_argument(
        "--ind", type=Path, required=True, metavar="PKL", help="rows to keep, in this order"
    )
    parser.add_argument(
        "--et", action="store_true", help="rows are tilt images, --ind numbers particles"
    )
    parser.add_argument(
        "-m", "--micrograph-files", action="store_true", help="write one file per micrograph"
    )
    parser.add_argument(
        "-o", type=Path, required=True, metavar="STAR", help=".star to write; with -m a folder"
    )


def run(args: argparse.Namespace) -> None:
    """Write the rows and say how many."""
    from frazil.io.outputs import check_output
    from frazil.io.star_rows import filter_star

    if not args.micrograph_files:
        check_output(args.o, (".star",), [args.input])
    lines = filter_star(args.input, args.o, args.ind, args.et, args.micrograph_files)
    print("\n".join(lines))
