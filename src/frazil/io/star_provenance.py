"""Which column of which table of a STAR file each quantity came from, as lines for the log.

Owns: these lines, and the arithmetic of one shift. Does not own: reading (`frazil.io.star`).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from frazil.io.star_format import StarFile
from frazil.io.star_labels import CISTEM_STACK, Dialect, dialect_of


def _kinds(dialect: Dialect) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each kind of quantity and its labels."""
    yield "images", (dialect.image, CISTEM_STACK, "_rlnImageSize")
    yield "pixel size", tuple(label for labels in dialect.pixel_sizes for label in labels)
    yield "poses", dialect.angles
    yield "shifts", tuple(label for pair in dialect.shift_pairs for label in pair)
    yield "CTF", tuple(dialect.ctf.values())
    yield "half-sets", (dialect.half_set,)


def star_provenance(star: StarFile, rows: NDArray[np.void]) -> tuple[str, ...]:
    """Return where each quantity of the particles `rows` (N,) came from, and one shift's sum."""
    return (*_tables(star), *_arithmetic(star, rows))


def _tables(star: StarFile) -> Iterator[str]:
    """Yield the labels of each kind by table; the particles' own go before those of the optics."""
    particles = star.particles
    optics = star.optics
    for kind, labels in _kinds(dialect_of(particles)):
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
    dialect = dialect_of(particles)
    if dialect.shifts_ang[0] in particles:
        turned = " times -1" if dialect.shift_sign < 0 else ""
        labels = " and ".join(dialect.shifts_ang) + turned
        yield f"row {row} (0-based): shift ({x_ang:.6g}, {y_ang:.6g}) A ({labels})"
        return
    size = float(rows["pixel_size_ang"][row])
    yield (
        f"row {row} (0-based): shift ({x_ang / size:.6g}, {y_ang / size:.6g}) px (_rlnOriginX/Y) x "
        f"{size:.6g} A/px = ({x_ang:.6g}, {y_ang:.6g}) A"
    )
