"""Settings of a mixture of the latents.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them.
"""

from typing import Annotated, Any

import msgspec

from frazil.errors import InputError
from frazil.settings import Settings, option

MOST_COMPONENTS = 256


class MixtureSettings(Settings, frozen=True, kw_only=True):
    """How a Gaussian mixture is fitted to the latents of a run of train_pca."""

    components: Annotated[
        str,
        option(
            "--components",
            metavar="M",
            help="number of Gaussians, or auto: chosen by the likelihood of held-out half sets",
        ),
    ] = "auto"
    restarts: Annotated[
        int,
        option("--restarts", metavar="N", help="random starts, of which the best is kept", ge=1),
    ] = 5
    floor: Annotated[
        float,
        option(
            "--floor",
            metavar="V",
            help="smallest variance of a Gaussian in any direction; all latents together have 1",
            gt=0,
        ),
    ] = 1e-3
    seed: Annotated[int, option("--seed", metavar="S", help="random seed", ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise InputError when the number of components is neither auto nor a number."""
        super().__post_init__()
        if self.components == "auto":
            return
        if not self.components.isdecimal() or not 1 <= int(self.components) <= MOST_COMPONENTS:
            raise InputError(
                f"--components {self.components}: give auto or a number from 1 to {MOST_COMPONENTS}"
            )

    @property
    def count(self) -> int | None:
        """Number of components; None: to be chosen."""
        return None if self.components == "auto" else int(self.components)

    def to_json(self) -> dict[str, Any]:
        """Return all fields by name."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields
