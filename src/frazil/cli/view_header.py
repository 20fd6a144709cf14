"""Print the header of an .mrc volume or .mrcs stack, and what it comes to.

frazil view_header particles.mrcs
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of view_header."""
    parser.add_argument("input", type=Path, metavar="MRC", help="volume or stack")


def run(args: argparse.Namespace) -> None:
    """Print one field a line."""
    from frazil.io.mrc import read_header
    from frazil.io.mrc_edit import header_fields

    header = read_header(args.input)
    fields = header_fields(args.input)
    order = fields.pop("order")
    for name, value in fields.items():
        print(f"{name:<9}: {value}")
    scale = f"{header.pixel_size_ang:.6g} A/px" if header.pixel_size_ang else "no pixel size"
    print(
        f"\n{header.nz} x {header.ny} x {header.nx} of {header.dtype.name}, {order}-endian, {scale}"
    )
    if header.whole_images < header.nz:
        print(f"warning: cut short, {header.whole_images} of {header.nz} sections are whole")
