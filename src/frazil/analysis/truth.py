"""How a run on simulated particles agrees with what was simulated.

Owns: joining latents with the true conformations by row. Does not own: the measures
(`frazil.metrics.latents`). Nothing here is known to training.
"""

from pathlib import Path

import numpy as np
import torch

from frazil.errors import InputError
from frazil.metrics.latents import latent_agreement
from frazil.runs.folder import Run


def agreement_with_truth(run: Run, epoch: int, conformations: Path) -> dict[str, float]:
    """Return the agreement of an epoch's latents with the true coordinate, by name of measure.

    Parameters
    ----------
    conformations : truth/conformations.npy of `frazil simulate`, (N,), one per row of the input.

    Raises
    ------
    InputError : the file belongs to another number of particles.
    """
    truth = np.load(conformations, allow_pickle=False)
    rows = run.rows()
    if rows.max() >= len(truth):
        raise InputError(
            f"{conformations}: holds {len(truth)} conformations, but {run.path} trained row "
            f"{rows.max()}; give the truth of the same set"
        )
    latents = torch.from_numpy(run.latents(epoch))
    return latent_agreement(latents, torch.from_numpy(truth[rows]))
