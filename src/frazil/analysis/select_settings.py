"""Settings of selections and exports.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them (`frazil.analysis.select`, `frazil.analysis.export`).
"""

from typing import Annotated

from frazil.io.paths import PlaceSettings
from frazil.settings import option


class SetSettings(PlaceSettings, frozen=True, kw_only=True):
    """The particles, and what is known of them."""

    source: Annotated[
        str, option("source", metavar="SRC", help="store, run folder, .cs, .star, stack, .sel")
    ]
    epoch: Annotated[
        int | None, option("--epoch", metavar="N", help="epoch of a run; default: the last", ge=1)
    ] = None
    columns: Annotated[
        tuple[str, ...],
        option(
            "--column",
            metavar="NAME=FILE",
            repeat=True,
            help="columns of your own, one value per particle of SRC: .npy, .pkl or .txt",
        ),
    ] = ()


class SelectSettings(SetSettings, frozen=True, kw_only=True):
    """Which particles are chosen. Conditions first, then a random draw among those that pass."""

    where: Annotated[
        str | None, option("--where", metavar="EXPR", help="condition on columns (see --list)")
    ] = None
    also: Annotated[
        tuple[str, ...],
        option(
            "--and",
            metavar="SEL",
            repeat=True,
            help="only particles that are in these selections, too",
        ),
    ] = ()
    either: Annotated[
        tuple[str, ...],
        option(
            "--or",
            metavar="SEL",
            repeat=True,
            help="and the particles of these, whatever the above says",
        ),
    ] = ()
    never: Annotated[
        tuple[str, ...],
        option("--not", metavar="SEL", repeat=True, help="but no particle of these"),
    ] = ()
    count: Annotated[
        int | None, option("-n", metavar="K", help="draw this many of them at random", ge=1)
    ] = None
    fraction: Annotated[
        float | None,
        option("--frac", metavar="F", help="draw this part of them at random", gt=0, le=1),
    ] = None
    stratify: Annotated[
        str | None,
        option(
            "--stratify",
            metavar="COLUMN",
            help="draw the same part of every value of a column (of tenths of its range of ranks, "
            "if it has more than 50 values)",
        ),
    ] = None
    halves: Annotated[
        bool,
        option("--halves", help="write two random halves, OUT_a and OUT_b, not one selection"),
    ] = False
    seed: Annotated[int, option("--seed", help="of the random draw", ge=0, le=(1 << 32) - 1)] = 0


class ExportSettings(SetSettings, frozen=True, kw_only=True):
    """What is written into which file."""

    into: Annotated[
        str,
        option("--into", metavar="FILE", help="the original .cs, .csg or .star, which stays as is"),
    ]
    out: Annotated[str, option("-o", metavar="OUT", help="file to write, of the same kind")]
    add: Annotated[
        str | None,
        option(
            "--columns",
            metavar="NAMES",
            help="columns to add, with commas: latents, cluster, or any that select --list names",
        ),
    ] = None
    ind: Annotated[
        str | None, option("--ind", metavar="SEL", help="only these particles of SRC")
    ] = None
    keep_all: Annotated[
        bool,
        option("--keep-all", help="keep particles that SRC does not have; columns are nan there"),
    ] = False
    drop_missing: Annotated[
        bool,
        option("--drop-missing", help="leave out particles of SRC that FILE does not have"),
    ] = False
    all_copies: Annotated[
        bool,
        option("--all-copies", help="take every row over an image of which one row is chosen"),
    ] = False
