"""Screening: which images are far from all others of their optics group.

Owns: what is measured of every image in the packing pass, and the rule that finds far outliers in
it. Does not own: when images are measured (`blocks`), the list of what was found (`screen_files`).

The rule is a pure function of the measures of all images, so neither threads nor a stop change what
it finds. A measure of an image is far when it differs from the median of its optics group by FAR
robust standard deviations (1.4826 MAD), and by more than its least difference.
"""

from dataclasses import dataclass

import numpy as np
import torch

from frazil.io.particles import FLAG_CONSTANT, FLAG_NONFINITE, FLAG_OUTLIER
from frazil.preprocess.statistics import middle
from frazil.store.writer import BAND_FACTS, PIXEL_FACTS

FAR = 8.0
"""Robust standard deviations from the median beyond which a measure is far."""
FEWEST_IMAGES = 32
"""Images of a group that are judged by themselves; those of smaller ones by all images."""
MOST_FAR, FEW_FAR = 0.05, 8
"""Part of a group, and number, beyond which far images are no outliers but another population."""
MEASURED_ROWS = 32
_LEAST_RATIO = 2.0
_LEAST_MEAN = 0.5
_MAD_TO_STD = 1.4826
_SMALLEST_RATIO = 1e-6

MEASURES = ("mean", "std", "dark peak", "bright peak", *(f"{band} power" for band in BAND_FACTS))
"""What is compared. The mean is in standard deviations, all others are ratios to the median."""


def pixel_facts(images: np.ndarray, facts: np.ndarray) -> None:
    """Fill the PIXEL_FACTS (n,) of images (n, S, S) float32; NaN where pixels are.

    They are of every n-th row, MEASURED_ROWS or more, so a lone hot pixel may be missed; it adds
    white noise that hardly counts. To read all would slow packing down by a tenth.
    """
    side = images.shape[1]
    rows = torch.from_numpy(images)[:, :: max(1, side // MEASURED_ROWS)]
    facts["lowest"], facts["highest"] = rows.amin((1, 2)).numpy(), rows.amax((1, 2)).numpy()
    # Sums over rows in float32, then over the image in float64: a large mean does no harm.
    mean = rows.sum(-1).mean(1, dtype=torch.float64) / side
    square = torch.linalg.vector_norm(rows, dim=-1).double().square_().mean(1) / side
    variance = square.addcmul_(mean, mean, value=-1).clamp_(min=0)
    facts["mean"], facts["std"] = mean.float().numpy(), variance.sqrt_().float().numpy()


def band_power(power: np.ndarray, counts: np.ndarray, facts: np.ndarray) -> None:
    """Fill the BAND_FACTS (n,) from sums of |F|^2 per shell (n, D/2) of `counts` coefficients.

    Low is up to an eighth of the radius, mid up to one half; NaN in a band without a shell.
    """
    shells = len(counts)
    edges = (0, max(1, shells // 8), max(1, shells // 2), shells)
    with np.errstate(invalid="ignore", over="ignore"):
        for name, start, stop in zip(BAND_FACTS, edges[:-1], edges[1:], strict=True):
            number = counts[start:stop].sum()
            facts[name] = power[:, start:stop].sum(1) / number if number else np.nan


@dataclass(frozen=True, eq=False)
class Screening:
    """What was found of M images, `outliers` (m,) of which are far from the others.

    Attributes
    ----------
    flags : (M,) uint32, those of the packing and FLAG_OUTLIER.
    outliers : (m,) their numbers, ascending.
    score : (m, 7) how far each of MEASURES is from the median of the group, in robust standard
        deviations; 0 where it is not judged.
    change : (m, 7) the difference itself: of the mean in standard deviations, of the others the
        ratio to the median.
    notes : lines worth telling the user.
    """

    flags: np.ndarray
    outliers: np.ndarray
    score: np.ndarray
    change: np.ndarray
    notes: tuple[str, ...] = ()

    def reasons(self, outlier: int) -> str:
        """Return why the image outliers[outlier] is one: its far measures, farthest first."""
        order = np.argsort(-self.score[outlier], kind="stable")
        return ", ".join(
            f"{MEASURES[m]} {self.change[outlier, m]:+.3g} std"
            if m == 0
            else f"{MEASURES[m]} x{self.change[outlier, m]:.3g}"
            for m in order.tolist()
            if self.score[outlier, m] > FAR
        )


def screen(
    facts: np.ndarray, group: np.ndarray, group_names: tuple[str, ...], pixels: bool = True
) -> Screening:
    """Return the flags of all images, far outliers among them.

    Parameters
    ----------
    facts : (M,) of FACTS_DTYPE.
    group, group_names : optics group of each image (M,), and what it is called. Images of groups
        of fewer than FEWEST_IMAGES are judged together, if need be beside all others.
    pixels : False for Fourier images, whose pixels are no grey values.
    """
    everyone = np.flatnonzero((facts["flags"] & (FLAG_NONFINITE | FLAG_CONSTANT)) == 0)
    sizes = np.bincount(group[everyone], minlength=len(group_names))
    judged = np.where(sizes[group] < FEWEST_IMAGES, len(group_names), group)[everyone]
    members_of = np.split(
        everyone[np.argsort(judged, kind="stable")],
        np.cumsum(np.bincount(judged, minlength=len(group_names) + 1))[:-1],
    )
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    notes: list[str] = []
    for name, members in zip((*group_names, "(small groups)"), members_of, strict=True):
        others = members if len(members) >= FEWEST_IMAGES else everyone
        if not len(members) or len(others) < FEWEST_IMAGES:
            continue
        score, change = _compared(facts[members], facts[others], pixels)
        for measure, count in enumerate((score > FAR).sum(0).tolist()):
            if count > max(MOST_FAR * len(members), FEW_FAR):
                notes.append(
                    f"optics group {name}: {count} of {len(members)} images differ from the rest "
                    f"in {MEASURES[measure]}: no outliers but another kind of images"
                )
                score[:, measure] = 0
        far = np.flatnonzero((score > FAR).any(axis=1))
        found.append((members[far], score[far], change[far]))
    return _screening(facts["flags"], found, tuple(notes))


def _screening(
    flags: np.ndarray,
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    notes: tuple[str, ...],
) -> Screening:
    """Return what was found group by group (outliers, score, change) in the order of the images."""
    none = np.zeros((0, len(MEASURES)), np.float32)
    found = [(np.zeros(0, np.int64), none, none), *found]
    outliers, score, change = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(outliers)
    flags = flags.copy()
    flags[outliers] |= FLAG_OUTLIER
    return Screening(flags, outliers[order], score[order], change[order], notes)


def _compared(facts: np.ndarray, others: np.ndarray, pixels: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and changes (n, 7) float32 of images beside those that set the medians."""
    score = np.zeros((len(facts), len(MEASURES)), np.float32)
    change = np.zeros_like(score)
    first = 0 if pixels else len(PIXEL_FACTS)
    spread = float(middle(others["std"].astype(np.float64))) or 1.0
    for measure in range(first, len(MEASURES)):
        mine, theirs = _values(facts, measure), _values(others, measure)
        known = theirs[np.isfinite(theirs)]
        if not len(known):
            continue
        centre = middle(known)
        if measure == 0:
            mine, theirs, least = (mine - centre) / spread, (known - centre) / spread, _LEAST_MEAN
        elif centre > 0:
            mine, theirs = _log_ratio(mine / centre), _log_ratio(known / centre)
            least = np.log(_LEAST_RATIO)
        else:
            continue
        deviation = _MAD_TO_STD * middle(np.abs(theirs - middle(theirs)))
        mine = np.where(np.isfinite(mine), mine, 0.0)
        score[:, measure] = np.abs(mine) / max(float(deviation), least / FAR)
        change[:, measure] = mine if measure == 0 else np.exp(mine)
    return score, change


def _log_ratio(ratio: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(ratio, _SMALLEST_RATIO))


def _values(facts: np.ndarray, measure: int) -> np.ndarray:
    """Return (n,) float64 of one of MEASURES; a peak is in standard deviations of its image."""
    name = (*PIXEL_FACTS, *BAND_FACTS)[measure]
    values: np.ndarray = facts[name].astype(np.float64)
    if name not in ("lowest", "highest"):
        return values
    height = np.abs(values - facts["mean"])
    std = facts["std"].astype(np.float64)
    return np.divide(height, std, out=np.full(len(facts), np.nan), where=std > 0)
