"""A pass that was stopped in the middle: its sums so far, in a file of the run.

Owns: what is kept of a pass, how often, and whether it belongs to the fit as it is now. Does not
own: the pass (`streaming`) or the format of the file (`frazil.runs.checkpoint`).

The file is as large as the sums in memory, so it is written rarely, and a pass of a few minutes has
none. It is of use as long as the state before the pass is bit for bit the same.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from frazil.engines.pca.streaming import Fit, PassSums
from frazil.errors import CorruptDataError
from frazil.loader.prefetch import ParticleLoader
from frazil.runs.checkpoint import load_checkpoint, save_checkpoint

PARTIAL_NAME = "pass.safetensors"
PARTIAL_SECONDS = 300.0


class Partial:
    """Keeps a pass now and then, and takes up one that was kept.

    Parameters
    ----------
    path : the file.
    fit : the state before the pass.
    what : facts that tell this pass from others.
    loader : where the particles come from; it is moved to where the kept pass was stopped.
    results : arrays that the pass fills particle by particle; they are kept and taken up too.
    """

    def __init__(
        self,
        path: Path,
        fit: Fit,
        what: Mapping[str, Any],
        loader: ParticleLoader,
        results: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._path, self._loader, self._results = path, loader, results
        self._key = {**what, "state": _digest(fit)}
        self._saved = time.monotonic()

    def begin(self, sums: list[PassSums]) -> None:
        """Fill empty sums, one for each thread and model, with those kept of this pass, if any.

        Raises
        ------
        CorruptDataError : the file is damaged.
        """
        if not self._path.is_file():
            return
        try:
            tensors, facts = load_checkpoint(self._path)
        except CorruptDataError as error:
            raise CorruptDataError(
                f"{self._path}: is damaged; remove it, and the pass begins again"
            ) from error
        if facts["key"] != self._key or len(facts["sums"]) != len(sums):
            return
        for number, (one, numbers) in enumerate(zip(sums, facts["sums"], strict=True)):
            _fill(one, tensors, f"{number}.", numbers)
        for name, values in self._results.items():
            values[:] = tensors[f"results.{name}"].numpy()
        self._loader.load_state_dict(facts["position"])

    def after_batch(self, gathered: Callable[[], list[PassSums]]) -> None:
        """Keep the pass so far, if the last time was long ago."""
        if time.monotonic() - self._saved < PARTIAL_SECONDS:
            return
        sums = gathered()
        tensors = {f"results.{name}": torch.from_numpy(v) for name, v in self._results.items()}
        for number, one in enumerate(sums):
            tensors |= _tensors(one, f"{number}.")
        facts = {"key": self._key, "position": self._loader.state_dict()}
        save_checkpoint(self._path, tensors, facts | {"sums": [_numbers(one) for one in sums]})
        self._saved = time.monotonic()


def _digest(fit: Fit) -> str:
    digest = xxhash.xxh3_128()
    for model in fit.models:
        digest.update(torch.view_as_real(model).contiguous().numpy().data)
    digest.update(np.ascontiguousarray(fit.deviation).data)
    return digest.hexdigest()


def _tensors(sums: PassSums, prefix: str) -> dict[str, Tensor]:
    arrays: dict[str, NDArray[Any]] = {
        "second": sums.second,
        "power": sums.power,
        "counts": sums.counts,
    }
    if sums.voxels is not None:
        arrays["recent"] = sums.voxels.recent
        if sums.voxels.total is not None:
            arrays["total"] = sums.voxels.total
    return {prefix + name: torch.from_numpy(array) for name, array in arrays.items()}


def _numbers(sums: PassSums) -> dict[str, float]:
    voxels = {} if sums.voxels is None else sums.voxels.numbers()
    return {"evidence": sums.evidence, "images": sums.images, **voxels}


def _fill(
    sums: PassSums, tensors: Mapping[str, Tensor], prefix: str, numbers: Mapping[str, Any]
) -> None:
    for name in ("second", "power", "counts"):
        getattr(sums, name)[:] = tensors[prefix + name].numpy()
    sums.evidence, sums.images = numbers["evidence"], numbers["images"]
    if sums.voxels is not None:
        total = tensors.get(f"{prefix}total")
        recent = tensors[f"{prefix}recent"].numpy()
        sums.voxels.restore(recent, None if total is None else total.numpy(), numbers)
