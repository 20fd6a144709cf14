"""Settings of train_pca.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them.
"""

from typing import Annotated, Any

import msgspec

from frazil.preprocess.settings import InputSettings
from frazil.settings import Settings, option
from frazil.store.manifest import Precision


class ModelSettings(Settings, frozen=True, kw_only=True):
    """What is fitted, and how thoroughly."""

    zdim: Annotated[int, option("--zdim", metavar="K", help="number of components", ge=1, le=32)]
    low_radius: Annotated[
        int,
        option(
            "--low-radius",
            metavar="R",
            unit="cycles per box",
            help="resolution at which the components are found",
            ge=3,
        ),
    ] = 10
    low_iterations: Annotated[
        int, option("--low-iterations", metavar="N", help="passes at that resolution", ge=1)
    ] = 14
    padding: Annotated[
        int, option("--padding", help="refinement of the Fourier grid, 1 or 2", ge=1, le=2)
    ] = 1
    fit: Annotated[
        int | None,
        option("--fit", metavar="N", help="fit a random N particles, then embed all", ge=2),
    ] = None
    mask: Annotated[
        str | None,
        option("--mask", metavar="MRC", help="solvent or focus mask; default: made from the maps"),
    ] = None
    contrast: Annotated[bool, option("--contrast", help="estimate the contrast of each image")] = (
        False
    )
    seed: Annotated[int, option("--seed", metavar="S", help="random seed", ge=0)] = 0


class DataSettings(InputSettings, frozen=True, kw_only=True):
    """Which particles, from a store or from files, and how they are prepared."""

    box_px: Annotated[
        int | None, option("-D", "--box", unit="px", metavar="D", help="a smaller box, even", ge=8)
    ] = None
    uninvert_data: Annotated[
        bool, option("--uninvert-data", help="particles are dark already: do not change the sign")
    ] = False
    precision: Annotated[
        Precision, option("--precision", help="numbers kept per coefficient when packing")
    ] = "int8"
    cache: Annotated[
        str | None,
        option("--cache", metavar="DIR", help="keep the packed store here; default: the outdir"),
    ] = None
    memory: Annotated[
        str | None,
        option("--memory", metavar="SIZE", help="ceiling of memory, e.g. 8G; default: automatic"),
    ] = None
    max_threads: Annotated[
        int, option("--max-threads", metavar="N", help="threads that work on images", ge=1)
    ] = 1
    device: Annotated[str, option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )


class PcaSettings(Settings, frozen=True, kw_only=True):
    """All that decides a run."""

    model: ModelSettings
    data: DataSettings

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return all fields by part and name, as config.json gives them back."""
        fields: dict[str, dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(self))
        return fields


_FREE = {
    "particles",
    "poses",
    "ctf",
    "ind",
    "datadir",
    "maps",
    "cache",
    "memory",
    "max_threads",
    "device",
}


def differing_names(now: PcaSettings, before: dict[str, Any]) -> list[str]:
    """Return the settings that forbid going on with a run, as "name (was X, is Y)".

    Parameters
    ----------
    before : "settings" of the run's config.json.
    """
    return [
        f"{name} (was {before.get(part, {}).get(name)}, is {value})"
        for part, fields in now.to_json().items()
        for name, value in fields.items()
        if name not in _FREE and before.get(part, {}).get(name) != value
    ]
