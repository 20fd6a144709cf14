"""Write a soft mask of a volume: threshold, growth by a ball, cosine edge.

The default threshold, half of the 99.99th percentile of the voxels, suits a map with little noise.

  frazil gen_mask map.mrc mask.mrc --dilate 10 --dist 10 -p mask.png
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.tool_settings import MaskSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of gen_mask."""
    add_settings(parser, MaskSettings)


def run(args: argparse.Namespace) -> None:
    """Write the mask, say what it is, and draw it."""
    from frazil.analysis.mask import mask_figure, write_mask
    from frazil.analysis.plots import save_figure

    settings = read_settings(args, MaskSettings)
    lines, volume, mask = write_mask(settings)
    print("\n".join(lines))
    if settings.png:
        save_figure(mask_figure(volume, mask), Path(settings.png))
