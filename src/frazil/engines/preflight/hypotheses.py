"""What may be wrong with poses, shifts and CTF, as changes to a sample's metadata.

Owns: the hypothesis, the list of those that are tried, and what each one means. Does not own: how
well they do (`score`).
"""

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
    rows : whose rotations: the image's own, those of another image drawn at random, or those of the
        row before or after.
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
        return self.shift == other.shift

    def with_shift(self, matrix: Matrix) -> "Hypothesis":
        """Return the hypothesis with a matrix applied after its own."""
        (a, b), (c, d) = matrix
        (e, f), (g, h) = self.shift
        product = ((a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h))
        return replace(self, shift=product)


def scaled(factor: float) -> Matrix:
    """Return the matrix that multiplies shifts by a factor."""
    return ((factor, 0.0), (0.0, factor))
