"""Copy an .mrc file with another pixel size in its header; every other byte stays.

frazil add_psize map.mrc --Apix 1.73 -o map.mrc
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of add_psize."""
    parser.add_argument("input", type=Path, metavar="MRC", help="volume or stack")
    parser.add_argument("--Apix", type=float, default=1.0, help="A/px (default: 1)")
    parser.add_argument(
        "-o", type=Path, required=True, metavar="MRC", help="file to write; may be the input"
    )


def run(args: argparse.Namespace) -> None:
    """Write the copy and say what the pixel size was."""
    from frazil.io.mrc import read_header
    from frazil.io.mrc_edit import header_fields, set_pixel_size
    from frazil.io.outputs import check_output
    from frazil.preprocess.parallel import image_bar

    check_output(args.o, (".mrc", ".mrcs", ".map", ".st"))
    header = read_header(args.input)
    with image_bar(header.nz, "copying", header.frame_bytes) as advance:
        set_pixel_size(args.input, args.o, args.Apix, advance)
    before = f"{header.pixel_size_ang:.6g}" if header.pixel_size_ang else "not set"
    print(f"{args.o}: {args.Apix:.6g} A/px (before: {before})")
    fields = header_fields(args.o)
    origin = [fields[name] for name in ("xorg", "yorg", "zorg")]
    if any(origin):
        print(f"note: the origin in the header stays at {origin} A")
