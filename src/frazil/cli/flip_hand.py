"""Mirror a map in z: the other hand.

The mirror plane goes through the origin, voxel D/2, so that poses fit as before (as in RELION;
cryoDRGN leaves the map one voxel off). Pixel size, origin and the rest of the header stay.

  frazil flip_hand map.mrc
  frazil flip_hand map.mrc -o other.mrc
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of flip_hand."""
    parser.add_argument("input", type=Path, metavar="MRC", help="volume, .mrc")
    parser.add_argument(
        "-o", "--outmrc", type=Path, metavar="MRC", help="to write (default: NAME_flipped.mrc)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the changed copy."""
    from frazil.cli.changed import write_changed
    from frazil.io.mrc_edit import mirrored_blocks

    write_changed(args.input, args.outmrc, "flipped", lambda header: mirrored_blocks(header))
