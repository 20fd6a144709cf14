"""Write the rows of a cryoSPARC .cs file that a selection names, every column byte for byte.

A file of any size is copied in a few megabytes of memory.

  frazil filter_cs particles.cs --ind ind.pkl -o good.cs
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of filter_cs."""
    parser.add_argument("particles", type=Path, metavar="CS", help=".cs file to take rows of")
    parser.add_argument(
        "--ind", type=Path, required=True, metavar="PKL", help="rows to keep, in this order"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CS", help="to write")


def run(args: argparse.Namespace) -> None:
    """Write the rows and say how many."""
    from tqdm import tqdm

    from frazil.io.cryosparc_files import read_cs
    from frazil.io.cs_rows import copy_cs_rows
    from frazil.io.outputs import check_output
    from frazil.io.selection_file import read_rows_of

    check_output(args.output, (".cs",), [args.particles])
    count = len(read_cs(args.particles))
    rows = read_rows_of(args.ind, args.particles, count)
    with tqdm(total=len(rows), desc="copying", unit="row") as bar:
        copy_cs_rows(args.particles, args.output, rows, bar.update)
    print(f"{args.output}: {len(rows)} of {count} particles")
