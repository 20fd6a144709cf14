"""Write a part of the rows of a cryoDRGN pickle: pose.pkl, ctf.pkl, ind.pkl, z.N.pkl.

Every array of the file is filtered, both pickles of a z.N.pkl too. Nothing of a pickle is run.

  frazil filter_pkl pose.pkl --ind ind.pkl -o pose.part.pkl
  frazil filter_pkl ctf.pkl --first 10000 -o ctf.part.pkl
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of filter_pkl."""
    parser.add_argument("input", type=Path, metavar="PKL", help="pickle to take rows of")
    parser.add_argument("--ind", type=Path, metavar="PKL", help="rows to keep, in this order")
    parser.add_argument("--first", type=int, metavar="N", help="keep the first N rows instead")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PKL", help="pickle to write"
    )


def run(args: argparse.Namespace) -> None:
    """Write the rows and say how many."""
    from frazil.io.outputs import check_output
    from frazil.io.pickle_rows import filter_pickle

    check_output(args.output, inputs=[args.input, *([args.ind] if args.ind else [])])
    print("\n".join(filter_pickle(args.input, args.output, args.ind, args.first)))
