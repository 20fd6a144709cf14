"""Settings of `frazil downsample`: cryoDRGN's flags.

Owns: the fields and their help. Does not own: the work (`frazil.preprocess.downsample`).
"""

import os
from typing import Annotated

from frazil.io.paths import PlaceSettings
from frazil.settings import option


class DownsampleSettings(PlaceSettings, frozen=True, kw_only=True):
    """What is cropped, to which box, and where it goes."""

    input: Annotated[
        str, option("input", help="particles (.mrcs, .star, .cs, .txt), or a volume (.mrc)")
    ]
    box_px: Annotated[
        int, option("-D", unit="px", metavar="D", help="new box size, even, at most the old one")
    ]
    out: Annotated[
        str, option("-o", "--outfile", metavar="OUT", help="X.mrcs, X.star, X.txt or a volume .mrc")
    ]
    outdir: Annotated[
        str | None,
        option(
            "--outdir", metavar="DIR", help="folder of the stacks of a .star; default: beside it"
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        option(
            "-b",
            "--batch-size",
            metavar="B",
            help="images at a time and thread, at most; default: by memory",
            ge=1,
        ),
    ] = None
    is_volume: Annotated[bool, option("--is-vol", help="the input is a volume")] = False
    chunk: Annotated[
        int | None,
        option(
            "--chunk",
            metavar="N",
            help="write stacks X.0.mrcs, X.1.mrcs, ... of N images and their list X.txt",
            ge=1,
        ),
    ] = None
    max_threads: Annotated[
        int, option("--max-threads", metavar="N", help="threads that read and transform", ge=1)
    ] = min(16, os.cpu_count() or 1)
    ind: Annotated[
        str | None,
        option("--ind", metavar="SEL", help="keep these particles: .sel, or rows as .pkl"),
    ] = None
    overwrite: Annotated[bool, option("--overwrite", help="replace an existing output")] = False
