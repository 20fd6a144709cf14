"""Checkpoints: named tensors with a JSON description, in one safetensors file.

Owns: writing them whole or not at all, and reading them back. Does not own: which tensors make up
a state (`frazil.engines`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from frazil.errors import CorruptDataError, MissingFileError
from frazil.io.atomic import write_bytes_atomic

FORMAT = 1
_KEY = "frazil"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and their description; a kill at any moment leaves the former file.

    Parameters
    ----------
    tensors : by name; copied to the CPU.
    facts : what JSON can hold.

    Raises
    ------
    BudgetError, InputError, MissingFileError : see `frazil.io.atomic`.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps({"format": FORMAT, **facts})
    # As bytes: written by safetensors itself, a full disk would be no OSError, the mode private.
    write_bytes_atomic(path, save(on_cpu, metadata={_KEY: described}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the description of a checkpoint.

    Raises
    ------
    MissingFileError : no such file.
    CorruptDataError : not a whole checkpoint of ours, or of a later format.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; weights.N.safetensors is wanted")
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptDataError(
            f"{path}: is not a whole safetensors file ({error}); restore it, or go on from others"
        ) from error
    if described is None:
        raise CorruptDataError(f"{path}: is a safetensors file that frazil did not write")
    facts = json.loads(described)
    if facts["format"] != FORMAT:
        raise CorruptDataError(
            f"{path}: checkpoint format {facts['format']}, this frazil reads {FORMAT}; update it"
        )
    return tensors, facts


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with "prefix." before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those tensors whose name begins with "prefix.", by the rest of their name."""
    start = f"{prefix}."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def generator_from(state: Tensor, device: torch.device) -> torch.Generator:
    """Return a generator on the device that goes on from a saved state."""
    generator = torch.Generator(device=device)
    generator.set_state(state)
    return generator
