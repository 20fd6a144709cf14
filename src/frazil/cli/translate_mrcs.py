"""Move each image by its shift, so that the particle comes to the centre.

frazil translate_mrcs particles.mrcs pose.pkl -o centred.mrcs
"""

import argparse
from pathlib import Path

from frazil.cli.flags import add_settings, read_settings
from frazil.io.tool_settings import TranslateSettings

_DRAWN = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of translate_mrcs."""
    add_settings(parser, TranslateSettings)


def run(args: argparse.Namespace) -> None:
    """Write the stack and say what it is."""
    from frazil.preprocess.stack_tools import translate_stack

    settings = read_settings(args, TranslateSettings)
    print("\n".join(translate_stack(settings, lambda line: print(line, flush=True))))
    if settings.png:
        import numpy as np

        from frazil.analysis.pictures import grey_png, side_by_side, to_grey
        from frazil.io.atomic import write_bytes_atomic
        from frazil.io.mrc import read_header, read_images

        header = read_header(Path(settings.out))
        few = read_images(header, np.arange(min(_DRAWN, header.nz)))
        write_bytes_atomic(Path(settings.png), grey_png(side_by_side(to_grey(few))))
