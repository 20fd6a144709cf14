"""The distinct images of a table, and what becomes of each: the way from rows to codes.

Owns: the checks of a table before its images are read, the pre-sample that sets the steps of the
shells, and the encoding of any of the images. Does not own: the maths of one image (`steps`,
`blocks`), or where codes go (`pipeline`).
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from frazil.errors import InputError
from frazil.io.images import ImageSource, open_images
from frazil.io.particles import ParticleTable
from frazil.preprocess.blocks import Block, encode_block, joined_blocks
from frazil.preprocess.inputs import DistinctImages, used_sources
from frazil.preprocess.parallel import ordered_map, progress
from frazil.preprocess.samplings import SamplingPlan, plan_samplings, transforms_of
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.statistics import reference_shell_rms, shell_power
from frazil.preprocess.steps import (
    SUB_BATCH,
    ImageTransform,
    packed_coefficients,
)
from frazil.store.codec import Codec, shell_steps
from frazil.store.manifest import shell_counts

# Images read twice to set the shell table: a twentieth of the set, within these bounds.
SAMPLE_IMAGES = 2048
FEWEST_SAMPLED = 256
TASK_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class CodeScale:
    """What turns coefficients of one set into codes.

    `reference` (D/2,) is the RMS of |F| per shell that most images have, `steps` (D/2,) what the
    codes of a shell are multiplied by; `codec` holds the same steps per coefficient.
    """

    reference: np.ndarray
    steps: np.ndarray
    codec: Codec


@dataclass(frozen=True, eq=False)
class PreparedImages:
    """M distinct images in reading order, ready to be encoded; threads may share it.

    Attributes
    ----------
    table : the particles, with only those stacks that a row uses.
    distinct : which row each image belongs to, and which image each row has.
    transforms, transform_of : one per sampling, and which each image (M,) has.
    group, group_names : optics group of each image (M,), images without one in the last.
    sampling : the box and pixel size of the store, and those of the images.
    """

    table: ParticleTable
    images: ImageSource
    settings: PackSettings
    distinct: DistinctImages
    transforms: tuple[ImageTransform, ...]
    transform_of: np.ndarray
    group: np.ndarray
    group_names: tuple[str, ...]
    sampling: SamplingPlan
    _of_thread: threading.local = field(default_factory=threading.local, repr=False)

    @classmethod
    def of(
        cls, table: ParticleTable, settings: PackSettings, past_cache: bool = False
    ) -> "PreparedImages":
        """Return the images of a table; reads headers only. `past_cache` as in `open_images`.

        Raises
        ------
        InputError : no particles, a box that is odd or too large, pixel sizes that cannot be
            brought to one, or a mixture of rows with and without pose, shift or CTF.
        MissingFileError, CorruptDataError : see `open_images`.
        """
        if not len(table):
            raise InputError(f"{table.origin}: no particles to pack")
        table = used_sources(table)
        images = open_images(table, past_cache=past_cache, mixed=True)
        sampling = plan_samplings(table, images, settings)
        if images.domain == "hartley" and (sampling.resampled or sampling.box_px != images.box_px):
            flag = "--Apix out, and pack each pixel size alone" if sampling.resampled else "-D out"
            raise InputError(
                f"{table.origin}: holds Fourier images of {images.box_px} px; leave {flag}"
            )
        # A mixture of rows with and without is refused before anything is read.
        _ = table.has_pose, table.has_shift, table.has_ctf
        distinct = DistinctImages.of(table)
        groups = table.rows["optics_group"][distinct.rows]
        names = table.optics_groups
        if (groups < 0).any():
            names = (*names, "(none)")
        group = np.where(groups < 0, len(names) - 1, groups)
        transforms = transforms_of(sampling, settings, images.domain)
        of_image = sampling.of_row[distinct.rows]
        return cls(table, images, settings, distinct, transforms, of_image, group, names, sampling)

    def __len__(self) -> int:
        return len(self.distinct.rows)

    @property
    def transform(self) -> ImageTransform:
        """That of the coarsest images; all have its disc."""
        return self.transforms[0]

    def by_transform(self, part: np.ndarray) -> Iterator[tuple[ImageTransform, np.ndarray]]:
        """Yield the transforms that some of the M images have, and the places of these in `part`"""
        which = self.transform_of[part]
        for number in np.unique(which).tolist():
            yield self.transforms[number], np.flatnonzero(which == number)

    @property
    def counts(self) -> np.ndarray:
        """(D/2,) coefficients of each shell."""
        return shell_counts(self.transform.box_px)

    @property
    def task_images(self) -> int:
        """Images that one thread encodes at a time, about TASK_BYTES of them."""
        side = self.images.box_px + 1
        return max(1, TASK_BYTES // (4 * side * side * SUB_BATCH)) * SUB_BATCH

    def scale(self, reference: np.ndarray) -> CodeScale:
        """Return the scale that follows from the shell RMS of most images."""
        precision = self.settings.precision
        steps = shell_steps(reference, precision)
        return CodeScale(reference, steps, Codec.from_shells(precision, steps, self.transform.disc))

    def sampled_power(self) -> np.ndarray:
        """Return (n, D/2) sums of |F|^2 of a random sample, spread over all files and groups.

        A pure function of the table and of `settings.seed`.
        """
        count = min(SAMPLE_IMAGES, max(FEWEST_SAMPLED, len(self) // 20), len(self))
        generator = np.random.Generator(np.random.PCG64(self.settings.seed))
        chosen = np.sort(generator.choice(len(self), count, replace=False))
        task = self.task_images

        def work(start: int) -> np.ndarray:
            part = chosen[start : start + task]
            power = np.empty((len(part), len(self.counts)))
            for transform, places in self.by_transform(part):
                images = torch.from_numpy(self.images.read(self.distinct.rows[part[places]]))
                power[places] = shell_power(packed_coefficients(images, transform), transform.disc)
            return power

        starts = range(0, count, task)
        parts = ordered_map(work, starts, self.settings.max_threads)
        return np.concatenate(list(progress(parts, "sampling", "block", len(starts))))

    def reference(self) -> np.ndarray:
        """Return (D/2,) the RMS of |F| per shell that most images of the sample have."""
        return reference_shell_rms(self.sampled_power(), self.counts)

    def encode(self, part: slice | np.ndarray, scale: CodeScale) -> Block:
        """Return the codes, facts and statistics of some of the M images, in that order."""
        numbers = np.arange(len(self))[part]
        encoded = []
        for transform, places in self.by_transform(numbers):
            rows = self.distinct.rows[numbers[places]]
            images = self.images.read(
                rows, self._buffer(len(rows), int(self.images.sides_px[rows[0]]))
            )
            groups = (self.group[numbers[places]], len(self.group_names))
            block = encode_block(images, groups, transform, scale.codec, scale.reference)
            encoded.append((places, block))
        return joined_blocks(encoded)

    def _buffer(self, count: int, side: int) -> np.ndarray:
        """Return (count, side, side) float32 that this thread reads into again and again.

        Fresh memory costs a page fault for every 4 kB, as long as the read itself.
        """
        needed = count * side * side
        kept: np.ndarray | None = getattr(self._of_thread, "buffer", None)
        if kept is None or len(kept) < needed:
            kept = self._of_thread.buffer = np.empty(needed, np.float32)
        return kept[:needed].reshape(count, side, side)

    def describe_row(self, row: int) -> str:
        """Return where a table row's image comes from."""
        place = self.table.rows[row]
        path = self.table.sources[place["source"]]
        return f"{self.table.origin}: row {row} (0-based; image {place['index'] + 1} of {path})"
