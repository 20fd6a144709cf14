"""Multiply a map, or a stack, by -1. Pixel size, origin and the rest of the header stay.

frazil invert_contrast map.mrc
frazil invert_contrast map.mrc -o other.mrc
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of invert_contrast."""
    parser.add_argument("input", type=Path, metavar="MRC", help="volume or stack")
    parser.add_argument(
        "-o", "--outmrc", type=Path, metavar="MRC", help="to write (default: NAME_inverted.mrc)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the changed copy."""
    from frazil.cli.changed import write_changed
    from frazil.io.mrc_edit import section_blocks

    write_changed(
        args.input,
        args.outmrc,
        "inverted",
        lambda header: (-block for block in section_blocks(header)),
    )
