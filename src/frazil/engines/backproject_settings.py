"""Settings of back-projection: cryoDRGN's flags.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them (`backproject`).
"""

from typing import Annotated, Literal

from frazil.preprocess.settings import InputSettings
from frazil.settings import Settings, option


class BackprojectSettings(Settings, frozen=True, kw_only=True):
    """How images are weighted and maps normalised.

    The interpolation is not corrected by default: the correction raises the noise around the
    particle most, which lowers an unmasked FSC between half maps, and cryoDRGN's maps, which users
    compare with, have none. Switch it on to compare grey values with a known structure.
    """

    ctf_alg: Annotated[
        Literal["mul", "flip"],
        option("--ctf-alg", help="weight images by their CTF, or only flip phases by its sign"),
    ] = "mul"
    reg_weight: Annotated[
        float,
        option(
            "--reg-weight",
            help="add this times the mean weight to the weights, which damps what is hardly seen",
            ge=0,
        ),
    ] = 1.0
    half_maps: Annotated[
        bool, option("--no-half-maps", help="write neither half maps nor their FSC")
    ] = True
    half_set: Annotated[
        Literal["even-odd", "stored"],
        option("--half-set", help="halves by turns in the order of the rows, or those of the file"),
    ] = "even-odd"
    correct_interpolation: Annotated[
        bool,
        option(
            "--correct-interpolation",
            help="undo the fall-off towards the edge of the box that trilinear insertion causes",
        ),
    ] = False


class BackprojectInput(InputSettings, frozen=True, kw_only=True):
    """Which particles are back-projected; what is not a store is packed into one first."""

    first: Annotated[
        int | None, option("--first", metavar="N", help="back-project the first N rows only", ge=1)
    ] = None
    uninvert_data: Annotated[
        bool,
        option("--uninvert-data", help="do not change the sign of images that are not packed yet"),
    ] = False
    box_px: Annotated[
        int | None,
        option("-D", "--box", unit="px", metavar="D", help="a smaller box, even", ge=4),
    ] = None
    batch_size: Annotated[
        int, option("-b", "--batch-size", metavar="B", help="images read at a time", ge=1)
    ] = 1000
    cache: Annotated[
        str | None,
        option(
            "--cache",
            metavar="DIR",
            help="fast local disk for packed particles: the store that is packed (default: in the "
            "outdir), or a copy of what is read of a .frz",
        ),
    ] = None
    memory: Annotated[
        str | None,
        option(
            "--memory",
            metavar="SIZE",
            help="ceiling of maps and buffers, e.g. 8G; default: half of what host, cgroup and "
            "SLURM allow",
        ),
    ] = None
