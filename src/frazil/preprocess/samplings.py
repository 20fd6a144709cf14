"""Sets of images of several pixel sizes and boxes, and the one that a store gives them.

Owns: which samplings a table has, and the pixel size and box that all are brought to. Does not own:
the transform of an image (`steps`), or the formats.

A store has one box of D px and one pixel size A. Its coefficient k is that of the frequency
k / (D A) in 1/A, whatever image it is of; so an image of pixel size a is transformed at the
frequencies k a / (D A) cycles per pixel. No image is interpolated, none needs a whole number of
pixels, and a box that is larger or smaller than D A is cut by the window or padded with zeros.
"""

from dataclasses import dataclass

import msgspec
import numpy as np

from frazil.errors import InputError
from frazil.io.images import ImageSource
from frazil.io.particles import ParticleTable
from frazil.preprocess.inputs import SAME, mixes_pixel_sizes
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import ImageTransform, plan_transform, resampled_transform
from frazil.store.manifest import Sampling, check_box


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """What is read, and what it becomes.

    Attributes
    ----------
    samplings : box and pixel size of the images, the coarsest first; `of_row` (N,) indexes them.
    box_px, pixel_size_ang : of the store; the pixel size is None where that of the images is.
    resampled : False when all images have one sampling, and only their box is cropped.
    """

    samplings: tuple[Sampling, ...]
    of_row: np.ndarray
    box_px: int
    pixel_size_ang: float | None
    resampled: bool

    @property
    def source_box_px(self) -> int:
        """Box that the pixel sizes of the store's rows belong to; see `stored_rows`."""
        return self.box_px if self.resampled else self.samplings[0].box_px

    def cycles_per_px(self, sampling: Sampling) -> float:
        """Return the frequency of k = 1 in cycles per pixel of a sampling: 1/S for its own box."""
        if self.pixel_size_ang is None or sampling.pixel_size_ang is None:
            return 1 / sampling.box_px
        frequency = sampling.pixel_size_ang / (self.pixel_size_ang * self.box_px)
        # Rounding must not part images from those that need no resampling.
        own = abs(frequency * sampling.box_px - 1) < 1e-9
        return 1 / sampling.box_px if own else frequency

    def grey_scale(self, sampling: Sampling) -> float:
        """Return what coefficients are multiplied by: 1 for the coarsest images.

        Images are taken to be extracted with the same noise per pixel (deviation 1 in RELION and
        cryoSPARC), which white noise of one dose has at every pixel size only after a scaling by
        1/a. A coefficient is a sum over 1/a^2 pixels, so a is what brings its noise, and with it
        its signal, to those of the other groups.
        """
        first = self.samplings[0].pixel_size_ang
        if first is None or sampling.pixel_size_ang is None:
            return 1.0
        return sampling.pixel_size_ang / first

    def stored_rows(self, table: ParticleTable) -> np.ndarray:
        """Return the rows of a table as a store keeps them: of one pixel size when resampled."""
        rows = table.rows.copy()
        if self.resampled:
            rows["pixel_size_ang"] = self.pixel_size_ang
        return rows


def plan_samplings(
    table: ParticleTable, images: ImageSource, settings: PackSettings
) -> SamplingPlan:
    """Return the box and pixel size that a store of the images has.

    Without --Apix: the extent (in A) and, without -D, the box of the coarsest images. With it, the
    box is -D, or the even one nearest to that extent.

    Raises
    ------
    InputError : pixel sizes that are needed and not known, or coarser than what is asked for; a
        box that is odd or too large.
    """
    samplings, of_row = _samplings(table, images)
    wanted_ang, first = settings.pixel_size_ang, samplings[0]
    if len(samplings) == 1 and wanted_ang is None:
        box_px = settings.box_px or first.box_px
        check_box(box_px, first.box_px, "the images")
        size = first.pixel_size_ang
        stored = None if size is None else size * first.box_px / box_px
        return SamplingPlan(samplings, of_row, box_px, stored, False)
    if first.pixel_size_ang is None:
        boxes = " and ".join(f"{sampling.box_px}" for sampling in samplings)
        raise InputError(
            f"{table.origin}: images of {boxes} px cannot be brought to one pixel size, because "
            "theirs is not known; add it to the file, or pack each box by itself (--ind)"
        )
    if settings.window_order == "crop-first":
        raise InputError(
            f"{table.origin}: --window-order crop-first needs images of one box and pixel size; "
            "leave it out"
        )
    extent_ang = first.box_px * first.pixel_size_ang
    box_px = settings.box_px or (
        first.box_px if wanted_ang is None else 2 * round(extent_ang / wanted_ang / 2)
    )
    check_box(box_px, max(box_px, 4), "the images")
    stored = extent_ang / box_px if wanted_ang is None else wanted_ang
    if stored < first.pixel_size_ang * (1 - SAME):
        flag = f"-D {box_px}" if wanted_ang is None else f"--Apix {wanted_ang:g}"
        raise InputError(
            f"{table.origin}: {flag} asks for {stored:.4g} A/px, but {first.particles} particles "
            f"have {first.pixel_size_ang:.4g} A/px and hold nothing beyond their Nyquist, "
            f"{2 * first.pixel_size_ang:.4g} A; give --Apix {first.pixel_size_ang:.4g} or more, "
            "or leave them out (--ind)"
        )
    return SamplingPlan(samplings, of_row, box_px, stored, True)


def transforms_of(
    plan: SamplingPlan, settings: PackSettings, domain: str
) -> tuple[ImageTransform, ...]:
    """Return the transform of each sampling's images.

    The window of an image is that of its own box, or of the store's where that is smaller; without
    a window the image is cut to it.
    """
    settings = msgspec.structs.replace(settings, box_px=plan.box_px)
    if not plan.resampled:
        return (plan_transform(settings, plan.samplings[0].box_px, domain),)
    found = []
    for sampling in plan.samplings:
        cycles_per_px = plan.cycles_per_px(sampling)
        part_px = 1 / cycles_per_px
        window_px = part_px if part_px < sampling.box_px else None
        transform = plan_transform(settings, sampling.box_px, domain, window_px)
        found.append(resampled_transform(transform, cycles_per_px, plan.grey_scale(sampling)))
    return tuple(found)


def describe_samplings(plan: SamplingPlan) -> tuple[str, ...]:
    """Return what is resampled to what, in words."""
    if not plan.resampled or plan.pixel_size_ang is None:
        return ()
    extent = plan.box_px * plan.pixel_size_ang
    kinds = ", ".join(
        f"{s.particles} particles of {s.box_px} px at {s.pixel_size_ang:.5g} A/px"
        + _fitting(s.box_px * (s.pixel_size_ang or 0) / extent)
        for s in plan.samplings
    )
    return (f"resampled to {plan.box_px} px at {plan.pixel_size_ang:.5g} A/px: {kinds}",)


def _fitting(ratio: float) -> str:
    """Return what becomes of a box whose side is `ratio` times that of the store."""
    if abs(ratio - 1) <= SAME:
        return ""
    return " (cut to the new box)" if ratio > 1 else " (padded to the new box)"


def _samplings(
    table: ParticleTable, images: ImageSource
) -> tuple[tuple[Sampling, ...], np.ndarray]:
    """Return the samplings of a table, coarsest and then largest first, and that of each row."""
    sizes = table.rows["pixel_size_ang"]
    known = table.has_pixel_size
    boxes = images.sides_px - (images.domain == "hartley")
    group = np.zeros(len(table), np.int64)
    if known and mixes_pixel_sizes(table):
        distinct, which = np.unique(sizes, return_inverse=True)
        starts = [0]
        for place, size in enumerate(distinct.tolist()):
            if size > distinct[starts[-1]] * (1 + SAME):
                starts.append(place)
        group = (np.searchsorted(starts, np.arange(len(distinct)), side="right") - 1)[which]
    pairs, of_row = np.unique(np.stack([-group, -boxes], axis=1), axis=0, return_inverse=True)
    of_row = of_row.reshape(-1)
    found = []
    for number in range(len(pairs)):
        rows = np.flatnonzero(of_row == number)
        size = float(sizes[rows[0]]) if known else None
        found.append(Sampling(int(boxes[rows[0]]), size, len(rows)))
    return tuple(found), of_row
