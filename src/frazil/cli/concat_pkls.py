"""Join the rows of several pickles of one kind: pose.pkl, ctf.pkl, z.N.pkl, indices.

frazil concat_pkls pose.1.pkl pose.2.pkl -o pose.pkl
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of concat_pkls."""
    parser.add_argument("input", type=Path, nargs="+", metavar="PKL", help="pickles, in order")
    parser.add_argument("-o", type=Path, required=True, metavar="PKL", help="pickle to write")


def run(args: argparse.Namespace) -> None:
    """Write the joined rows and say how many there are."""
    from frazil.io.outputs import check_output
    from frazil.io.pickle_rows import concat_pickles

    check_output(args.o, inputs=args.input)
    print("\n".join(concat_pickles(args.input, args.o)))
