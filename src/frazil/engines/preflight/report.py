"""What preflight says, as plain values that are kept in preflight.json.

Owns: the record and its lines. Does not own: how the figures come about (`findings`).
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

Kind = Literal["mistake", "warning", "unknown"]
Verdict = Literal["looks right", "likely mistake", "cannot tell"]
REPORT_VERSION = 1


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found.

    `kind`: a mistake that should be mended before training, a warning, or what could not be told.
    `evidence` holds figures, `remedy` says what to do.
    """

    name: str
    kind: Kind
    says: str
    evidence: str
    remedy: str = ""

    def line(self) -> str:
        """Return it as one line."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.kind}: {self.says} ({self.evidence}){remedy}"


class Trial(msgspec.Struct, frozen=True):
    """An alternative against what is given: difference of held-out log-likelihoods, and sigmas."""

    name: str
    difference: float
    sigmas: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of a preflight.

    Attributes
    ----------
    key : digest of store, poses, CTF and settings that it belongs to.
    particles, box_px, pixel_size_ang : of the sample.
    resolution_ang : at FSC 0.143 of its half maps, unmasked; in px without a pixel size.
    fsc : by shell from 0.
    signal, poses, ctf : sigmas; see `search.Outcome`. ctf is None where there is none.
    trials : every alternative against what is given.
    skewness, centre_excess, spike, image_spike, centred_spike, edge_ring : see `shape.Shape`.
    efficiency : `metrics.orientation.sampling_efficiency` of the viewing directions.
    unseen : part of the directions in Fourier space sampled less than a fifth of the mean.
    group_noise : mean over shells of the RMS of each optics group, relative to that of all.
    """

    version: int = REPORT_VERSION
    program: str
    key: str
    verdict: Verdict
    findings: list[Finding]
    particles: int
    box_px: int
    pixel_size_ang: float | None
    resolution_ang: float
    fsc: list[float]
    signal: float
    poses: float
    ctf: float | None
    trials: list[Trial]
    skewness: float
    centre_excess: float
    spike: float
    image_spike: float
    centred_spike: float
    edge_ring: float
    efficiency: float
    unseen: float
    group_noise: dict[str, float]

    def lines(self) -> Iterator[str]:
        """Yield the lines for the log, the verdict first."""
        unit = "px" if self.pixel_size_ang is None else "A"
        in_part = self.verdict == "looks right" and any(f.kind == "unknown" for f in self.findings)
        verdict = "looks right, as far as these data tell" if in_part else self.verdict
        yield (
            f"preflight: {verdict} ({self.particles} particles at {self.box_px} px; half maps "
            f"agree to {self.resolution_ang:.3g} {unit}; views sample Fourier space with an "
            f"efficiency of {self.efficiency:.2f})"
        )
        for finding in self.findings:
            yield f"preflight: {finding.line()}"
