"""Print the columns of a .cs file with their values in the first row.

frazil view_cs_header particles.cs
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of view_cs_header."""
    parser.add_argument("input", type=Path, metavar="CS", help=".cs file")


def run(args: argparse.Namespace) -> None:
    """Print the number of rows, and one column a line."""
    from frazil.io.cs_rows import first_row

    count, values = first_row(args.input)
    print(f"{count} particles")
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"{name:<{width}}: {value}")
