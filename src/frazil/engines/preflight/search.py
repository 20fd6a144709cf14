"""Which hypothesis the images prefer, and whether poses and CTF are theirs at all.

Owns: the order of trying, and what counts as significant. Does not own: the scores (`score`), the
words (`findings`).
"""

from dataclasses import dataclass, replace

import numpy as np

from frazil.engines.preflight.hypotheses import ALTERNATIVES, Alternative, Hypothesis
from frazil.engines.preflight.sample import Sample
from frazil.engines.preflight.score import Prepared, Score, score

# Particles that alternatives are tried on; all are taken where the signal is weak.
TRIAL_PARTICLES = 2500
_STRONG = 40.0
# An alternative is named when it beats what is given by this many standard errors AND by this part
# of the gain: real data are never modelled perfectly.
SIGNIFICANT = 6.0
RELATIVE = 0.02
_ROUNDS = 3
# By which the factor of a winner is divided and multiplied, one after the other.
_STEPS = (1.25, 1.1)


@dataclass(frozen=True)
class Comparison:
    """An alternative against the present hypothesis.

    `difference` is that of the held-out log-likelihoods, `sigmas` the same over its standard error,
    `relative` over the larger of both totals.
    """

    name: str
    difference: float
    sigmas: float
    relative: float

    @property
    def wins(self) -> bool:
        """Return whether the alternative is better beyond doubt."""
        return self.sigmas > SIGNIFICANT and self.relative > RELATIVE

    @classmethod
    def of(cls, name: str, found: Score, present: Score) -> "Comparison":
        """Return how a score differs from that of the present hypothesis, image by image."""
        difference = found.gain - present.gain
        error = float(difference.std() * np.sqrt(len(difference)))
        total = float(difference.sum())
        larger = max(found.total, present.total, 1e-12)
        return cls(name, total, total / error if error > 0 else 0.0, total / larger)


Entry = tuple[Alternative, Comparison, Score]


@dataclass(frozen=True, eq=False)
class _Stage:
    """The particles that are tried, under the present hypothesis, and its score."""

    sample: Sample
    prepared: Prepared
    present: Score

    @classmethod
    def of(cls, sample: Sample, hypothesis: Hypothesis) -> "_Stage":
        prepared = Prepared.of(sample, hypothesis)
        return cls(sample, prepared, score(sample, prepared))

    def tries(self, alternatives: list[Alternative]) -> list[Entry]:
        """Return alternatives with their comparison to the present hypothesis, and scores."""
        entries = []
        for alternative in alternatives:
            changed = alternative.change(self.prepared.hypothesis)
            found = _score_of(self.sample, changed, self.prepared)
            comparison = Comparison.of(alternative.name, found, self.present)
            entries.append((alternative, comparison, found))
        return entries


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the search found.

    Attributes
    ----------
    hypothesis : the best one; `changes` made it out of what was given, in the order of their gain.
    tried : every alternative against what was given.
    won : the comparison in which each change won.
    score : of the best hypothesis over the whole sample.
    signal : sigmas by which predictions of the other half beat none.
    poses : the best hypothesis against the poses of other images.
    ctf : the best hypothesis against the CTF of other images; None without a CTF.
    ball : sigmas by which a map from poses at random, which is nearly a ball, beats none.
    """

    hypothesis: Hypothesis
    changes: tuple[Alternative, ...]
    tried: tuple[Comparison, ...]
    won: tuple[Comparison, ...]
    score: Score
    signal: float
    poses: Comparison
    ctf: Comparison | None
    ball: float


def search(sample: Sample) -> Outcome:
    """Return the hypothesis that a sample prefers.

    Alternatives are tried one by one; the best of those that win is adopted, and the others are
    tried again on top of it, as one mistake may hide another. Those that a part of the sample
    leaves in doubt are tried on the whole of it.
    """
    stage = _Stage.of(sample.part(TRIAL_PARTICLES), Hypothesis())
    if _sigmas(stage.present) < _STRONG and len(stage.sample) < len(sample):
        stage = _Stage.of(sample, Hypothesis())
    changes: list[Alternative] = []
    won: list[Comparison] = []
    tried: dict[str, Comparison] = {}
    for _ in range(_ROUNDS):
        taken = {change.family for change in changes}
        open_ones = [a for a in ALTERNATIVES if a.family not in taken and _applies(a, sample)]
        found = stage.tries(open_ones)
        doubtful = [a for a, comparison, _ in found if abs(comparison.sigmas) < SIGNIFICANT]
        if doubtful and not _winners(found) and len(stage.sample) < len(sample):
            stage = _Stage.of(sample, stage.prepared.hypothesis)
            found += stage.tries(doubtful)
        if not changes:
            tried = {comparison.name: comparison for _, comparison, _ in found}
        winners = _winners(found)
        if not winners:
            break
        best, comparison, _ = _refined(max(winners, key=lambda e: e[1].difference), stage)
        changes.append(best)
        won.append(comparison)
        stage = _Stage.of(stage.sample, best.change(stage.prepared.hypothesis))
    if len(stage.sample) < len(sample):
        stage = _Stage.of(sample, stage.prepared.hypothesis)
    prepared, present = stage.prepared, stage.present
    best_of_all = prepared.hypothesis
    shuffled = _score_of(sample, replace(best_of_all, rows="shuffled"), prepared)
    other_ctf = None
    if sample.ctf is not None and best_of_all.transfer != "none":
        other = _score_of(sample, replace(best_of_all, other_ctf=True), prepared)
        other_ctf = Comparison.of("own CTF", present, other)
    poses = Comparison.of("own poses", present, shuffled)
    return Outcome(
        best_of_all,
        tuple(changes),
        tuple(tried.values()),
        tuple(won),
        present,
        _sigmas(present),
        poses,
        other_ctf,
        _sigmas(shuffled),
    )


def _applies(alternative: Alternative, sample: Sample) -> bool:
    """Return whether an alternative differs from what is given at all."""
    if alternative.family == "shifts":
        return bool(sample.shifts_px.any())
    if alternative.family in ("transfer", "pixel"):
        return sample.ctf is not None
    return True


def _winners(found: list[Entry]) -> list[Entry]:
    return [entry for entry in found if entry[1].wins]


def _refined(best: Entry, stage: _Stage) -> Entry:
    """Return the entry of the best factor near that of a winner, to a twentieth, if it has one."""
    for step in _STEPS:
        centre = best[0].factor
        if centre is None:
            break
        others = [best[0].with_factor(factor) for factor in (centre / step, centre * step)]
        best = max([best, *stage.tries(others)], key=lambda entry: entry[1].difference)
    return best


def _score_of(sample: Sample, hypothesis: Hypothesis, former: Prepared) -> Score:
    return score(sample, Prepared.of(sample, hypothesis, former))


def _sigmas(found: Score) -> float:
    """Return by how many standard errors a gain is above 0."""
    error = float(found.gain.std() * np.sqrt(len(found.gain)))
    return found.total / error if error > 0 else 0.0
