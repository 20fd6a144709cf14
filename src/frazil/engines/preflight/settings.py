"""Settings of preflight.

Owns: the fields and their help; importing it loads no numerics. Does not own: what is done with
them.
"""

from typing import Annotated

from frazil.settings import Settings, option


class PreflightSettings(Settings, frozen=True, kw_only=True):
    """How large the sample is."""

    particles_tried: Annotated[
        int, option("-n", "--num", metavar="N", help="particles of the sample", ge=100)
    ] = 10_000
    box_px: Annotated[
        int, option("-D", "--box", unit="px", metavar="D", help="box of the sample, at most", ge=16)
    ] = 64
