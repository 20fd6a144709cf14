"""From figures to findings: what is said, with which evidence, and what mends it.

Owns: the thresholds of everything but the search, and the wording. Does not own: the figures.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from frazil.engines.preflight.report import Finding, Verdict
from frazil.engines.preflight.search import SIGNIFICANT, Comparison, Outcome
from frazil.engines.preflight.shape import Shape

# Sigmas of the ball from which poses that explain nothing more are wrong, not weak: with right
# poses an asymmetric particle is seen at twice its ball's sigmas, a round one at one and a half.
BALL_SIGMAS = 8.0
_SKEWED = 1.0
# The mean of images without shifts, and without noise, may be as sharp in its centre as 6.
_SPIKE, _SPIKE_WITHOUT_SHIFTS = 3.0, 8.0
_EDGE_RING = 0.1
_POWER_RING = 2.0
EVEN_VIEWS = 0.5
# Gains of these differ little from what is given: whether they can be told apart is no news.
_NEAR = ("shifts x0.75", "shifts x1.3", "pixel size x0.67", "pixel size x1.5")


@dataclass(frozen=True)
class Facts:
    """What is known besides the search and the shape.

    Attributes
    ----------
    sign : what images were multiplied by when they were packed.
    has_ctf, has_shifts : whether there are any, other than 0.
    resolution : "12 A", what half maps agree to.
    efficiency, unseen : of the sampling of Fourier space.
    ring : (resolution text, factor) of the shell whose power stands out most.
    """

    sign: int
    has_ctf: bool
    has_shifts: bool
    resolution: str
    efficiency: float
    unseen: float
    ring: tuple[str, float]


def findings(outcome: Outcome, shape: Shape, facts: Facts) -> list[Finding]:
    """Return all findings, mistakes first."""
    found = list(_of_signal(outcome))
    # What seems to fit a ball better than the rest says nothing of the metadata.
    if outcome.poses.sigmas > SIGNIFICANT:
        found += [*_of_metadata(outcome), *_of_contrast(shape, facts), *_of_spikes(shape, facts)]
        found += _of_what_was_not_told(outcome, facts)
    found += _of_views(facts)
    if not any(change.family == "transfer" for change in outcome.changes):
        found += _of_power(facts)
    order = ("mistake", "warning", "unknown")
    return sorted(found, key=lambda finding: order.index(finding.kind))


def verdict(found: list[Finding], outcome: Outcome) -> Verdict:
    """Return the verdict of some findings."""
    if any(finding.kind == "mistake" for finding in found):
        return "likely mistake"
    return "looks right" if outcome.poses.sigmas > SIGNIFICANT else "cannot tell"


def _of_signal(outcome: Outcome) -> Iterator[Finding]:
    """Yield whether images and poses have anything to do with each other."""
    poses, ball = outcome.poses.sigmas, outcome.ball
    if poses > SIGNIFICANT:
        return
    evidence = f"own poses against poses at random: {poses:.1f} sigma; a ball: {ball:.1f} sigma"
    if ball > BALL_SIGMAS:
        yield Finding(
            name="poses of other images",
            kind="mistake",
            says="a particle is seen, but its poses predict it no better than poses at random do: "
            "rows are in another order, or poses are those of another set",
            evidence=evidence,
            remedy="give the poses of these images in the order of their rows (or the .star or .cs "
            "with both, which is joined by identity); only a particle that looks alike from all "
            "sides is an exception",
        )
        return
    yield Finding(
        name="weak signal",
        kind="unknown",
        says="the signal of these particles is too weak to tell anything",
        evidence=evidence,
        remedy="try more particles: frazil preflight -n N",
    )


def _of_metadata(outcome: Outcome) -> Iterator[Finding]:
    """Yield what fits better than what is given, and whether the CTF is that of these images."""
    for change, comparison in zip(outcome.changes, outcome.won, strict=True):
        yield Finding(
            name=change.name,
            kind="mistake",
            says=change.says,
            evidence=_evidence(comparison),
            remedy=change.remedy,
        )
    ctf = outcome.ctf
    if ctf is not None and ctf.sigmas < SIGNIFICANT:
        yield Finding(
            name="CTF",
            kind="unknown",
            says="the CTF of each image fits it no better than that of another image",
            evidence=f"{ctf.sigmas:.1f} sigma",
            remedy="either defocus hardly differs at this resolution, or the CTF is of other rows",
        )


def _of_contrast(shape: Shape, facts: Facts) -> Iterator[Finding]:
    """Yield whether the density is negative."""
    evidence = (
        f"skewness of the map {shape.skewness:.1f}, centre minus outside "
        f"{shape.centre_excess:.1f} times its rms"
    )
    if shape.skewness > _SKEWED or (shape.skewness > 0 and shape.centre_excess > 0):
        return
    if shape.skewness < -_SKEWED and shape.centre_excess < 1:
        how = "with" if facts.sign < 0 else "without"
        yield Finding(
            name="contrast inverted",
            kind="mistake",
            says="the density of the particle is negative: its contrast is inverted",
            evidence=evidence,
            remedy=f"pack again {how} --uninvert-data",
        )
        return
    yield Finding(
        name="contrast",
        kind="unknown",
        says="the sign of the density cannot be told",
        evidence=evidence,
        remedy="look at the map of backproject_voxel",
    )


def _of_spikes(shape: Shape, facts: Facts) -> Iterator[Finding]:
    """Yield spikes at the centre and rings at the edge."""
    sharpest = 2 * max(1.0, shape.centred_spike) if facts.has_shifts else _SPIKE_WITHOUT_SHIFTS
    for name, value, most, where in (
        ("centre spike", shape.spike, _SPIKE, "the map"),
        ("centre spike of images", shape.image_spike, sharpest, "the mean of all images"),
    ):
        if value > most:
            yield Finding(
                name=name,
                kind="warning",
                says=f"{where} has a spike at its centre",
                evidence=f"{value:.1f} times the next highest",
                remedy="images share a constant pattern (normalisation, detector, or noise aligned "
                "to a reference): look at their mean, and at the map of backproject_voxel",
            )
    if shape.edge_ring > _EDGE_RING:
        yield Finding(
            name="ring at the edge",
            kind="warning",
            says="the map has a ring near the edge of the box",
            evidence=f"{shape.edge_ring:.2f} of the rms in the centre",
            remedy="pack with the window (leave --no-window out)",
        )


def _of_what_was_not_told(outcome: Outcome, facts: Facts) -> Iterator[Finding]:
    """Yield the alternatives that fit as well as what is given."""
    close = [t.name for t in outcome.tried if abs(t.sigmas) < SIGNIFICANT and t.name not in _NEAR]
    if close and not outcome.changes:
        yield Finding(
            name="not told apart",
            kind="unknown",
            says=f"these fit as well as what is given: {', '.join(close)}",
            evidence=f"within {SIGNIFICANT:g} sigma, at {facts.resolution}",
        )
    for there, name in ((facts.has_shifts, "shifts"), (facts.has_ctf, "CTF")):
        if not there:
            yield Finding(
                name=f"no {name}", kind="unknown", says=f"{name} not checked", evidence="none given"
            )


def _of_views(facts: Facts) -> Iterator[Finding]:
    """Yield preferred views, and rings in the power spectrum."""
    if facts.efficiency < EVEN_VIEWS:
        yield Finding(
            name="preferred orientation",
            kind="warning",
            says="views are uneven: maps will be smeared out along the directions hardly seen",
            evidence=f"efficiency {facts.efficiency:.2f} of 1, {100 * facts.unseen:.0f} % of the "
            "directions are sampled less than a fifth of the mean",
            remedy="expand symmetry if poses cover one asymmetric unit only; else tilt, or balance "
            "views with --ind",
        )


def _of_power(facts: Facts) -> Iterator[Finding]:
    """Yield a ring in the power spectrum; where the noise carries the CTF, that has rings."""
    resolution, factor = facts.ring
    if factor > _POWER_RING:
        yield Finding(
            name="ring in the power spectrum",
            kind="warning",
            says=f"the power of all images has a ring at {resolution}",
            evidence=f"{factor:.1f} times its neighbours",
            remedy="crystalline ice or a detector pattern: a smaller -D leaves it out",
        )


def _evidence(comparison: Comparison) -> str:
    return (
        f"held-out log-likelihood {comparison.difference:+.0f}, {comparison.sigmas:.0f} sigma, "
        f"{100 * comparison.relative:.0f} % of the gain"
    )
