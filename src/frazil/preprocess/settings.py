"""Settings of preprocessing: cryoDRGN's flags, and those of the store.

Owns: the fields and their help. Does not own: reading particles or packing them.
"""

import os
from typing import Annotated, Literal

from frazil.io.paths import PlaceSettings
from frazil.settings import Settings, option
from frazil.store.manifest import Precision

WINDOW_OUTER = 0.99


class InputSettings(PlaceSettings, frozen=True, kw_only=True):
    """Which particles, and where their poses and CTF are."""

    particles: Annotated[
        str,
        option(
            "particles",
            help="particles: .star, .cs, .csg, cryoSPARC job folder, .mrcs, .txt or .ft.txt (or a "
            "store, but for packing)",
        ),
    ]
    poses: Annotated[
        str | None, option("--poses", metavar="PKL", help="poses, if not those of the input")
    ] = None
    ctf: Annotated[
        str | None, option("--ctf", metavar="PKL", help="CTF, if not that of the input")
    ] = None
    class_index: Annotated[
        int | None,
        option("--class", metavar="N", help="class of a cryoSPARC job that has several", ge=0),
    ] = None
    ind: Annotated[
        str | None,
        option("--ind", metavar="SEL", help="keep these particles: .sel, or rows as .pkl"),
    ] = None


class ImageSettings(Settings, frozen=True, kw_only=True):
    """What is done to each image."""

    box_px: Annotated[
        int | None,
        option("-D", unit="px", metavar="D", help="new box size, even; default: as it is", ge=4),
    ] = None
    window: Annotated[bool, option("--no-window", help="turn the real-space window off")] = True
    window_r: Annotated[
        float,
        option(
            "--window-r",
            metavar="R",
            help="radius where the window begins to fall, as a fraction of half the box",
            ge=0,
            le=0.98,
        ),
    ] = 0.85
    window_order: Annotated[
        Literal["window-first", "crop-first"],
        option("--window-order", help="window at the source's box, or after the Fourier crop"),
    ] = "window-first"
    uninvert_data: Annotated[
        bool, option("--uninvert-data", help="particles are dark already: do not change the sign")
    ] = False


class PackSettings(ImageSettings, frozen=True, kw_only=True):
    """How a store is packed."""

    pixel_size_ang: Annotated[
        float | None,
        option(
            "--Apix",
            unit="A/px",
            metavar="A",
            help="pixel size of the store, to which images are resampled; default: as -D says, or "
            "that of the coarsest images",
            gt=0,
        ),
    ] = None
    precision: Annotated[Precision, option("--precision", help="numbers kept per coefficient")] = (
        "int8"
    )
    max_threads: Annotated[
        int, option("--max-threads", metavar="N", help="threads that read and transform", ge=1)
    ] = min(16, (os.cpu_count() or 1) + 1)  # while one waits for the disk
    memory: Annotated[
        str | None,
        option(
            "--memory",
            metavar="SIZE",
            help="ceiling of buffers, e.g. 4G; fewer threads work when it is small; "
            "without it, half of what host, cgroup and SLURM allow",
        ),
    ] = None
    seed: Annotated[
        int, option("--seed", metavar="S", help="seed of the random order in the store", ge=0)
    ] = 0
    strict: Annotated[
        bool,
        option("--strict", help="make non-finite, constant or far outlying images an error"),
    ] = False
    drop_bad: Annotated[
        bool,
        option("--drop-bad", help="leave out the rows of such images (they stay in the store)"),
    ] = False
    overwrite: Annotated[bool, option("--overwrite", help="replace an existing output")] = False
