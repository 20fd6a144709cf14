"""Which column of which table of a STAR file each quantity came from, as lines for the log.

Owns: these lines, and the arithmetic of one shift. Does not own: reading (`frazil.io.star`).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from frazil.io.star_format import StarFile

_KINDS = (
    ("images", ("_rlnImageName", "_rlnImageSize")),
    (
        "pixel size",
        ("_rlnImagePixelSize", "_rlnDetectorPixelSize", "_rlnMagnification", "_rlnPixelSize"),
    ),
    ("poses", ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")),
    ("shifts", ("_rlnOriginXAngst", "_rlnOriginYAngst", "_rlnOriginX", "_rlnOriginY")),
    (
        "CTF",
        (
            "_rlnDefocusU",
            "_rlnDefocusV",
            "_rlnDefocusAngle",
            "_rlnVoltage",
            "_rlnSphericalAberration",
            "_rlnAmplitudeContrast",
            "_rlnPhaseShift",
        ),
    ),
    ("half-sets", ("_rlnRandomSubset",)),
)


def star_provenance(star: StarFile, rows: NDArray[np.void]) -> tuple[str, ...]:
    """Return where each quantity of the particles `rows` (N,) came from, and one shift's sum."""
    return (*_tables(star), *_arithmetic(star, rows))


def _tables(star: StarFile) -> Iterator[str]:
    """Yield the labels of each kind by table; the particles' own go before those of the optics."""
    particles = star.particles
    optics = star.blocks.get("optics")
    for kind, labels in _KINDS:
        own = [label for label in labels if label in particles]
        shared = [label for label in labels if optics is not None and label in optics]
        if own:
            yield f"{kind}: {', '.join(own)} of data_{particles.name}"
        if rest := [label for label in shared if label not in own]:
            yield f"{kind}: {', '.join(rest)} of data_optics"


def _arithmetic(star: StarFile, rows: NDArray[np.void]) -> Iterator[str]:
    """Yield how the first shift that is not zero comes about."""
    shift_ang, particles = rows["shift_ang"], star.particles
    if not len(rows) or not np.isfinite(shift_ang).all():
        return
    row = int(np.argmax(np.abs(shift_ang).max(axis=1) > 0))
    x_ang, y_ang = shift_ang[row].tolist()
    if "_rlnOriginXAngst" in particles:
        yield f"row {row} (0-based): shift ({x_ang:.6g}, {y_ang:.6g}) A (_rlnOriginX/YAngst)"
        return
    size = float(rows["pixel_size_ang"][row])
    yield (
        f"row {row} (0-based): shift ({x_ang / size:.6g}, {y_ang / size:.6g}) px (_rlnOriginX/Y) x "
        f"{size:.6g} A/px = ({x_ang:.6g}, {y_ang:.6g}) A"
    )
