"""Settings of maps by regression.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them.
"""

from typing import Annotated, Literal

from frazil.errors import InputError
from frazil.settings import Settings, described_fields, option


class RegressionSettings(Settings, frozen=True, kw_only=True):
    """Where maps come from, and how those made of the images are made."""

    maps: Annotated[
        Literal["decoder", "regression"],
        option("--maps", help="from the model, or from the images near each point"),
    ] = "decoder"
    latents: Annotated[
        str | None,
        option(
            "--latents",
            metavar="NPY",
            help="regression: latents (n, Z) in place of the run's, .npy or .pkl; RUN may then be "
            "a store, with a latent for each of its rows",
        ),
    ] = None
    mask: Annotated[
        str | None,
        option(
            "--mask",
            metavar="MRC",
            help="regression: solvent mask; default: that of the run, else a sphere",
        ),
    ] = None
    min_particles: Annotated[
        int | None,
        option(
            "--min-particles",
            metavar="N",
            help="regression: refuse a point with fewer particles near it; default: a fifth of "
            "what particles usually have",
            ge=1,
        ),
    ] = None
    memory: Annotated[
        str | None,
        option(
            "--memory",
            metavar="SIZE",
            help="regression: ceiling of memory, e.g. 8G; default: automatic",
        ),
    ] = None
    max_threads: Annotated[
        int,
        option("--max-threads", metavar="N", help="regression: threads that insert images", ge=1),
    ] = 1


def check_unused(settings: RegressionSettings) -> None:
    """Refuse flags of regression that were given without it.

    Raises
    ------
    InputError : names them.
    """
    flags = [
        field.flags[0]
        for field in described_fields(RegressionSettings)
        if field.name != "maps" and getattr(settings, field.name) != field.default
    ]
    if flags:
        raise InputError(f"{' '.join(flags)}: of use with --maps regression only")
