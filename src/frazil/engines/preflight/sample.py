"""A random sample of a store's particles at a low resolution, ready to be back-projected.

Owns: which particles are read, their half sets, their whitening. Does not own: what is asked of
them (`hypotheses`, `score`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.grids import Geometry
from frazil.loader.prefetch import LoaderSettings, ParticleLoader
from frazil.store.records import ParticleRecords

# What is held of a coefficient: the data, what two hypotheses make of them, and their factors.
COEFFICIENT_BYTES = 36
_BATCH_ROWS = 1000

Poses = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """n particles of a box of side d px, in random order.

    Attributes
    ----------
    geometry : of the box.
    rows : (n,) int64, rows of the store.
    half : (n,) 0 or 1; rows that share an image are in the same half.
    data : (n, P) complex64, coefficients over the root mean square of their shell in their optics
        group: nearly all of it is noise, so this whitens.
    rotations : (n, 3, 3) float32, model to image frame.
    shifts_px : (n, 2) float32, px of this box, (x, y) that centres the particle.
    before, after : rotations and shifts of the rows before and after in the store's table.
    ctf : (n, 8) float32 of `geometry.ctf`, or None.
    group : (n,) int64, optics group.
    power : (groups, S) float64, mean |F|^2 by shell, in units of the loader; 0 for empty groups.
    pixel_size_ang : of this box; None when unknown.
    """

    geometry: Geometry
    rows: NDArray[np.int64]
    half: NDArray[np.uint8]
    data: Tensor
    rotations: Tensor
    shifts_px: Tensor
    before: Poses
    after: Poses
    ctf: Tensor | None
    group: NDArray[np.int64]
    power: NDArray[np.float64]
    pixel_size_ang: float | None

    def poses_of(self, rows: str) -> Poses:
        """Return the poses of the images' own rows, or of those "before" or "after"."""
        others = {"before": self.before, "after": self.after}
        return others.get(rows, (self.rotations, self.shifts_px))

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, count: int) -> "Sample":
        """Return the first `count` particles."""
        chosen = slice(0, count)
        return Sample(
            self.geometry,
            self.rows[chosen],
            self.half[chosen],
            self.data[chosen],
            self.rotations[chosen],
            self.shifts_px[chosen],
            (self.before[0][chosen], self.before[1][chosen]),
            (self.after[0][chosen], self.after[1][chosen]),
            None if self.ctf is None else self.ctf[chosen],
            self.group[chosen],
            self.power,
            self.pixel_size_ang,
        )


def sample_rows(
    store: ParticleRecords, count: int, selected: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return at most `count` rows whose records lie together, which is a random choice of images.

    Parameters
    ----------
    selected : (m,) rows to choose from; None: all.
    """
    rows = np.arange(store.count) if selected is None else np.asarray(selected, np.int64)
    places = store.rows
    order = np.lexsort((places["slot"][rows], places["shard"][rows]))
    return rows[order[:count]]


def read_sample(
    store: ParticleRecords, rows: NDArray[np.int64], box_px: int | None = None
) -> Sample:
    """Return the sample of some rows, in storage order.

    Raises
    ------
    InputError : a row has no pose, or there is nothing to read.
    CorruptDataError : a shard is damaged.
    """
    settings = LoaderSettings(batch_size=_BATCH_ROWS, window_rows=_BATCH_ROWS)
    loader = ParticleLoader(store, settings, rows, box_px)
    geometry = Geometry.of(loader.box_px)
    batches = list(loader.in_order())
    read = np.concatenate([batch.rows.numpy() for batch in batches])
    data = torch.cat([batch.coefficients for batch in batches])
    parameters = [b.ctf_parameters for b in batches if b.ctf_parameters is not None]
    places = store.rows[read]
    group = np.asarray(places["optics_group"], np.int64)
    group = np.where(group < 0, 0, group)
    power = shell_power(data, geometry.shell, group)
    deviation = np.sqrt(np.where(power > 0, power, 1.0)).astype(np.float32)
    data /= torch.from_numpy(deviation)[torch.from_numpy(group)][:, geometry.shell]
    return Sample(
        geometry,
        read,
        (places["slot"] % 2).astype(np.uint8),
        data,
        torch.cat([batch.rotations for batch in batches]),
        torch.cat([batch.shifts_px for batch in batches]),
        _stored_poses(store, read - 1, loader.box_px),
        _stored_poses(store, (read + 1) % store.count, loader.box_px),
        torch.cat(parameters) if parameters else None,
        group,
        power,
        loader.pixel_size_ang,
    )


def _stored_poses(store: ParticleRecords, rows: NDArray[np.int64], box_px: int) -> Poses:
    """Return rotations and shifts (px) of rows; where there are none, identity and 0."""
    chosen = store.rows[rows]
    known = np.isfinite(chosen["rotation"]).all(axis=(1, 2))
    rotation = np.where(known[:, None, None], chosen["rotation"], np.eye(3, dtype=np.float32))
    pixel_ang = chosen["pixel_size_ang"] * (store.source_box_px / box_px)
    shift_px = np.nan_to_num(chosen["shift_ang"] / pixel_ang[:, None], posinf=0.0, neginf=0.0)
    return torch.from_numpy(rotation), torch.from_numpy(shift_px.astype(np.float32))


def shell_power(
    data: Tensor, shell: NDArray[np.int64], group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the mean |F|^2 (groups, S) of coefficients (n, P); shell 0 and empty groups: 0."""
    squared = (data.real**2 + data.imag**2).numpy()
    count = np.bincount(shell)
    order, edges = np.argsort(shell, kind="stable"), np.cumsum(count)[:-1]
    by_shell = np.add.reduceat(squared[:, order], edges, axis=1, dtype=np.float64)  # (n, S - 1)
    found = np.zeros((int(group.max()) + 1, len(count)))
    for number in np.unique(group):
        found[number, 1:] = by_shell[group == number].mean(0) / count[1:]
    return found
