"""Settings of write_star, phase_flip, translate_mrcs and gen_mask: cryoDRGN's flags.

Owns: the fields and their help. Does not own: the work (`star_input`, `frazil.preprocess.
stack_tools`, `frazil.analysis.mask`).
"""

from typing import Annotated

from frazil.io.paths import PlaceSettings
from frazil.settings import Settings, option

_Stack = Annotated[str, option("-o", metavar="MRCS", help="stack to write")]
_Particles = Annotated[str, option("mrcs", help="particles: .mrcs, .txt, .star or .cs")]


class WriteStarSettings(PlaceSettings, frozen=True, kw_only=True):
    """Flags of write_star."""

    particles: Annotated[str, option("particles", help="particles: .mrcs, .txt, .star or .cs")]
    out: Annotated[str, option("-o", "--outfile", metavar="STAR", help=".star to write")]
    ctf: Annotated[
        str | None, option("--ctf", metavar="PKL", help="ctf.pkl, which .mrcs and .txt need")
    ] = None
    poses: Annotated[str | None, option("--poses", metavar="PKL", help="pose.pkl")] = None
    ind: Annotated[
        str | None, option("--ind", metavar="PKL", help="rows to keep, in this order")
    ] = None
    full_path: Annotated[
        bool, option("--full-path", help="name stacks by absolute paths, not as in the input")
    ] = False
    relion30: Annotated[
        bool, option("--relion30", help="write RELION 3.0: no optics table, shifts in pixels")
    ] = False


class PhaseFlipSettings(PlaceSettings, frozen=True, kw_only=True):
    """Flags of phase_flip."""

    particles: _Particles
    ctf: Annotated[str, option("ctf_params", help="ctf.pkl")]
    out: _Stack


class TranslateSettings(PlaceSettings, frozen=True, kw_only=True):
    """Flags of translate_mrcs."""

    particles: _Particles
    shifts: Annotated[str, option("trans", help="pose.pkl, or a pickle of shifts (N, 2)")]
    scale: Annotated[float, option("--tscale", metavar="X", help="multiply the shifts by this")] = (
        1.0
    )
    out: _Stack
    png: Annotated[
        str | None, option("--out-png", metavar="PNG", help="also draw the first nine images")
    ] = None


class MaskSettings(Settings, frozen=True, kw_only=True):
    """Flags of gen_mask."""

    volume: Annotated[str, option("input", help="volume, .mrc")]
    out: Annotated[str, option("output", help="mask to write, .mrc")]
    threshold: Annotated[
        float | None,
        option(
            "--threshold",
            metavar="X",
            help="density from which on a voxel is inside; default: half of the 99.99th percentile",
        ),
    ] = None
    dilate_ang: Annotated[
        float,
        option(
            "--dilate", unit="A", metavar="A", help="grow the inside by a ball of this radius", ge=0
        ),
    ] = 25.0
    edge_ang: Annotated[
        float, option("--dist", unit="A", metavar="A", help="width of the cosine edge", ge=0)
    ] = 15.0
    pixel_size_ang: Annotated[
        float | None,
        option("--Apix", unit="A/px", metavar="A", help="pixel size, whatever the file says", gt=0),
    ] = None
    png: Annotated[
        str | None,
        option("-p", "--png-output", metavar="PNG", help="also draw slices of volume and mask"),
    ] = None
