"""What may be wrong with poses, shifts and CTF, as changes to a sample's metadata.

Owns: the hypothesis, the list of those that are tried, and what each one means. Does not own: how
well they do (`score`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Matrix = tuple[tuple[float, float], tuple[float, float]]
Transfer = Literal["ctf", "flipped", "premultiplied", "none"]
Rows = Literal["own", "shuffled", "before", "after"]
Family = Literal["rotations", "shifts", "transfer", "pixel", "rows"]

AS_GIVEN: Matrix = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Hypothesis:
    """How the metadata are to be taken.

    Attributes
    ----------
    transposed : rotations go the other way.
    shift : matrix that multiplies (x, y) of every shift.
    transfer : what multiplies the slices: CTF, |CTF|, CTF^2 or 1.
    pixel_scale : multiplies the pixel size in the CTF.
    rows : whose poses: the image's own, those of the row before or after, or the rotations of
        another image drawn at random, with the own shifts.
    other_ctf : the CTF of another image drawn at random.
    """

    transposed: bool = False
    shift: Matrix = AS_GIVEN
    transfer: Transfer = "ctf"
    pixel_scale: float = 1.0
    rows: Rows = "own"
    other_ctf: bool = False

    def same_transfer(self, other: "Hypothesis") -> bool:
        """Return whether the transfer of every image is the same under both."""
        mine = (self.transfer, self.pixel_scale, self.other_ctf)
        return mine == (other.transfer, other.pixel_scale, other.other_ctf)

    def same_shift(self, other: "Hypothesis") -> bool:
        """Return whether images are moved alike under both."""
        moved = [h.rows if h.rows in ("before", "after") else "own" for h in (self, other)]
        return self.shift == other.shift and moved[0] == moved[1]

    def with_shift(self, matrix: Matrix) -> "Hypothesis":
        """Return the hypothesis with a matrix applied after its own."""
        (a, b), (c, d) = matrix
        (e, f), (g, h) = self.shift
        product = ((a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h))
        return replace(self, shift=product)


def scaled(factor: float) -> Matrix:
    """Return the matrix that multiplies shifts by a factor."""
    return ((factor, 0.0), (0.0, factor))


@dataclass(frozen=True)
class Alternative:
    """One thing that may be wrong: what it is called, what it means, and what mends it.

    Attributes
    ----------
    name : as it stands in preflight.json.
    family : of alternatives that exclude one another.
    says : the finding, a sentence without its end.
    remedy : what to do, an imperative.
    change : from a hypothesis to the one in which this is mended.
    factor : what is multiplied, where it is a number that may be another as well (`with_factor`).
    """

    name: str
    family: Family
    says: str
    remedy: str
    change: Callable[[Hypothesis], Hypothesis]
    factor: float | None = None

    def with_factor(self, factor: float) -> "Alternative":
        """Return the same alternative with another factor."""
        return _pixel(factor) if self.family == "pixel" else _rescaled(factor)


_POSES = "give the right --poses, or mend the file that they came from and pack again"


def _moved(name: str, matrix: Matrix, says: str, remedy: str) -> Alternative:
    return Alternative(name, "shifts", says, remedy, lambda h: h.with_shift(matrix))


def _rescaled(factor: float) -> Alternative:
    found = _moved(
        f"shifts x{factor:.2g}",
        scaled(factor),
        f"shifts fit best when multiplied by {factor:.2g}",
        "check the box that they were parsed with (parse_pose_star and parse_pose_csparc -D: the "
        f"box given was about {factor:.2g} times the true one) and the pixel size; then {_POSES}",
    )
    return replace(found, factor=factor)


def _pixel(factor: float) -> Alternative:
    return Alternative(
        f"pixel size x{factor:.2g}",
        "pixel",
        f"the CTF fits best when the pixel size is multiplied by {factor:.2g}",
        "check the pixel size, the box given to parse_ctf_star or parse_ctf_csparc (-D) and the "
        "unit of the defocus; then give the right --ctf, or pack again",
        lambda h: replace(h, pixel_scale=h.pixel_scale * factor),
        factor,
    )


def _other_transfer(name: str, kind: Transfer, says: str, remedy: str) -> Alternative:
    return Alternative(name, "transfer", says, remedy, lambda h: replace(h, transfer=kind))


def _other_rows(name: str, rows: Rows, says: str) -> Alternative:
    remedy = f"poses and images are off by one row: {_POSES}"
    return Alternative(name, "rows", says, remedy, lambda h: replace(h, rows=rows))


_NEGATED = "their sign is that of another program; " + _POSES
ALTERNATIVES = (
    Alternative(
        "rotations transposed",
        "rotations",
        "rotations fit when transposed",
        f"they take the image frame to the model frame; transpose them, and {_POSES}",
        lambda h: replace(h, transposed=not h.transposed),
    ),
    _other_rows("poses of the row before", "before", "each image fits the pose of the row before"),
    _other_rows("poses of the row after", "after", "each image fits the pose of the row after"),
    _moved("shifts negated", scaled(-1), "shifts fit when negated", _NEGATED),
    _moved("shifts negated in x", ((-1, 0), (0, 1)), "shifts fit when x is negated", _NEGATED),
    _moved("shifts negated in y", ((1, 0), (0, -1)), "shifts fit when y is negated", _NEGATED),
    _moved(
        "shifts swapped",
        ((0, 1), (1, 0)),
        "shifts fit when x and y are swapped",
        f"a shift is (x, y), not (row, column); {_POSES}",
    ),
    _moved(
        "shifts applied already",
        scaled(0),
        "images fit best without their shifts",
        f"they were centred when they were extracted; set the shifts to 0, and {_POSES}",
    ),
    *map(_rescaled, (0.25, 0.5, 0.75, 4 / 3, 2.0, 4.0)),
    _other_transfer(
        "phase-flipped",
        "flipped",
        "images fit |CTF|: their phases were flipped",
        "extract them again without phase flipping (frazil models the CTF itself)",
    ),
    _other_transfer(
        "CTF-premultiplied",
        "premultiplied",
        "images fit CTF^2: they were multiplied by their CTF",
        "extract them again without CTF premultiplication (frazil models the CTF itself)",
    ),
    _other_transfer(
        "no CTF",
        "none",
        "images fit no CTF better than the one given",
        "check that the CTF belongs to these images; if they were corrected for it, leave it out",
    ),
    *map(_pixel, (0.5, 2 / 3, 1.5, 2.0)),
)
