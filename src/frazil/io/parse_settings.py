"""Settings of the parse commands: cryoDRGN's flags.

Owns: the fields and their help. Does not own: the parsing (`parse_poses`, `parse_ctf`).
"""

from typing import Annotated

from frazil.settings import Settings, option

_Star = Annotated[str, option("input", help="RELION .star file")]
_Cs = Annotated[str, option("input", help="cryoSPARC .cs, .csg or job folder")]
_PosePkl = Annotated[
    str, option("-o", "--outpkl", metavar="PKL", help="poses to write, e.g. pose.pkl")
]
_CtfPkl = Annotated[str, option("-o", metavar="PKL", help="CTF parameters to write, e.g. ctf.pkl")]
_Png = Annotated[
    str | None, option("--png", metavar="PNG", help="also plot the CTF of the first particle")
]
_Box = Annotated[
    int | None,
    option("-D", unit="px", metavar="D", help="box size, whatever the file says", ge=2),
]
_PixelSize = Annotated[
    float | None,
    option("--Apix", unit="A/px", metavar="A", help="pixel size, whatever the file says", gt=0),
]


class PoseStarSettings(Settings, frozen=True, kw_only=True):
    """Flags of parse_pose_star."""

    input: _Star
    out: _PosePkl
    box_px: _Box = None
    pixel_size_ang: _PixelSize = None


class PoseCsSettings(Settings, frozen=True, kw_only=True):
    """Flags of parse_pose_csparc."""

    input: _Cs
    out: _PosePkl
    box_px: Annotated[
        int | None,
        option(
            "-D",
            unit="px",
            metavar="D",
            help="box that the shifts in pixels belong to; default: from the pixel sizes",
            ge=2,
        ),
    ] = None
    abinit: Annotated[
        bool, option("--abinit", help="poses of an ab-initio job: --class 0 where none is given")
    ] = False
    class_index: Annotated[
        int | None,
        option("--class", metavar="N", help="poses of this class, where each has its own", ge=0),
    ] = None
    hetrefine: Annotated[
        bool,
        option("--hetrefine", help="heterogeneous refinement: double shifts whose scale is unsaid"),
    ] = False


class CtfStarSettings(Settings, frozen=True, kw_only=True):
    """Flags of parse_ctf_star."""

    input: _Star
    out: _CtfPkl
    box_px: _Box = None
    pixel_size_ang: _PixelSize = None
    voltage_kv: Annotated[
        float | None,
        option("--kv", unit="kV", metavar="KV", help="voltage, whatever the file says", gt=0),
    ] = None
    cs_mm: Annotated[
        float | None,
        option("--cs", unit="mm", metavar="CS", help="spherical aberration, likewise", ge=0),
    ] = None
    amplitude_contrast: Annotated[
        float | None,
        option("-w", metavar="W", help="amplitude contrast (0 to 1), likewise", ge=0, le=1),
    ] = None
    phase_shift_deg: Annotated[
        float | None, option("--ps", unit="deg", metavar="PS", help="phase shift, likewise")
    ] = None
    png: _Png = None


class CtfCsSettings(Settings, frozen=True, kw_only=True):
    """Flags of parse_ctf_csparc."""

    input: _Cs
    out: _CtfPkl
    box_px: _Box = None
    pixel_size_ang: _PixelSize = None
    png: _Png = None
