"""The one type that engines take: a batch of particles as tensors.

Owns: ParticleBatch, the same batch before it is decoded, and the metadata columns of a selection
in the units of the training box. Does not own: coefficients on disk (`frazil.store`) or their
order (`order`).
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from frazil.errors import InputError
from frazil.geometry.ctf import CTF_COLUMNS
from frazil.store.records import ParticleRecords

if TYPE_CHECKING:
    from frazil.loader.compiled import Kernel


@dataclass(frozen=True, eq=False)
class ParticleBatch:
    """B particles of one box of side D px.

    Attributes
    ----------
    rows : (B,) int64, rows of the store, which are the rows of its input.
    coefficients : (B, P) complex64 of the half-plane disc, in units of the loader's norm_scale.
    rotations : (B, 3, 3) float32, model to image frame.
    shifts_px : (B, 2) float32, (x, y) that centres the particle, in px of this box; 0 when absent.
    ctf_parameters : (B, 8) float32, columns of `geometry.ctf.CTF_COLUMNS`, the pixel size that of
        this box; None when the particles have no CTF.
    """

    rows: Tensor
    coefficients: Tensor
    rotations: Tensor
    shifts_px: Tensor
    ctf_parameters: Tensor | None

    def to(self, device: torch.device | str) -> "ParticleBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return _moved(self, device)


@dataclass(frozen=True, eq=False)
class CodedBatch:
    """A batch whose coefficients are codes still.

    Attributes
    ----------
    codes : (B, 2 P_b) of the store's type, one per leading band; Re and Im alternate.
    scale : (B,) float32, image gain divided by the loader's norm_scale.
    rows, rotations, shifts_px, ctf_parameters : as in ParticleBatch.
    """

    rows: Tensor
    codes: tuple[Tensor, ...]
    scale: Tensor
    rotations: Tensor
    shifts_px: Tensor
    ctf_parameters: Tensor | None

    def to(self, device: torch.device | str) -> "CodedBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return _moved(self, device)


AnyBatch = TypeVar("AnyBatch", ParticleBatch, CodedBatch)


def _moved(batch: AnyBatch, device: torch.device | str) -> AnyBatch:
    """Return a batch on a device; its rows, which index tables in memory, stay."""

    def on_device(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(on_device, value))
        return None if value is None else value.to(device, non_blocking=True)

    moved = {f.name: on_device(getattr(batch, f.name)) for f in fields(batch) if f.name != "rows"}
    return replace(batch, **moved)


@dataclass(frozen=True, eq=False)
class Decoder:
    """Codes to coefficients: code x step x scale, on the device where all of them are.

    Attributes
    ----------
    step : (2 P',) float32, of every real component of the leading bands.
    picked : (P,) int64, where the disc's coefficients lie among the P'; None: all, in order.
    """

    step: Tensor
    picked: Tensor | None

    def to(self, device: torch.device | str) -> "Decoder":
        """Return the decoder on a device."""
        return Decoder(
            self.step.to(device), None if self.picked is None else self.picked.to(device)
        )

    def __call__(self, batch: CodedBatch) -> ParticleBatch:
        """Return the batch with its coefficients; the bits are the same on every device."""
        return ParticleBatch(
            batch.rows,
            self.coefficients(batch.codes, batch.scale),
            batch.rotations,
            batch.shifts_px,
            batch.ctf_parameters,
        )

    def coefficients(self, codes: Sequence[Tensor], scale: Tensor) -> Tensor:
        """Return (B, P) complex64 coefficients of the codes of all bands and scales (B,)."""
        out = torch.empty(len(scale), len(self.step), dtype=torch.float32, device=scale.device)
        on_processor = scale.device.type == "cpu" and codes[0].dtype == torch.int8
        in_one_pass = on_processor and compiled_loop().done()
        (decode_in_one_pass if in_one_pass else decode_anywhere)(codes, self.step, scale, out)
        found = torch.view_as_complex(out.view(len(out), len(self.step) // 2, 2))  # (B, P')
        return found if self.picked is None else found[:, self.picked]


def decode_anywhere(codes: Sequence[Tensor], step: Tensor, scale: Tensor, out: Tensor) -> None:
    """Fill out (B, 2 P') with the codes of all bands x step (2 P') x scale (B,), any type."""
    torch.cat([band.float() for band in codes], dim=1, out=out)
    out.mul_(step).mul_(scale[:, None])


def decode_in_one_pass(codes: Sequence[Tensor], step: Tensor, scale: Tensor, out: Tensor) -> None:
    """Do the same for int8 in memory, to the same bits in half the time."""
    decode_int8, column = compiled_loop().result(), 0
    for band in codes:
        decode_int8(band.numpy(), step.numpy(), scale.numpy(), column, out.numpy())
        column += band.shape[1]


@cache
def compiled_loop() -> "Future[Kernel]":
    """Return the loop that decodes int8, which a thread imports and compiles from now on.

    That takes half a second, and one and a half on the first use ever: nobody waits for it.
    """

    def made() -> "Kernel":
        from frazil.loader.compiled import decode_int8

        one, ones = np.zeros((1, 1), np.int8), np.ones(1, np.float32)
        decode_int8(one, ones, ones, 0, np.empty((1, 1), np.float32))
        return decode_int8

    pool = ThreadPoolExecutor(1)
    future = pool.submit(made)
    pool.shutdown(wait=False)
    return future


@dataclass(frozen=True, eq=False)
class ParticleColumns:
    """Metadata of n selected particles, as tensors in the units of the training box."""

    rows: Tensor
    rotations: Tensor
    shifts_px: Tensor
    ctf_parameters: Tensor | None

    @classmethod
    def of(cls, store: ParticleRecords, rows: np.ndarray, box_px: int) -> "ParticleColumns":
        """Return the columns of the given rows of a store.

        Raises
        ------
        InputError : a row has no pose, or a shift or CTF but no pixel size, or only some rows
            have a shift or a CTF; names the row of the store.
        """
        chosen = store.rows[rows]
        rotations = chosen["rotation"].copy()
        _require_all(store, rows, np.isfinite(rotations).all(axis=(1, 2)), "pose", "--poses")
        scale = store.source_box_px / box_px
        pixel_ang = chosen["pixel_size_ang"] * scale
        shift_ang = chosen["shift_ang"].copy()
        shift_known = np.isfinite(shift_ang).all(axis=1)
        if not _known_somewhere(store, rows, shift_known, "shift", "--poses"):
            shift_ang[:] = 0
        shifted = (shift_ang != 0).any(axis=1)
        _require_all(store, rows, ~shifted | np.isfinite(pixel_ang), "pixel size", "--ctf")
        shift_px = np.where(shifted[:, None], shift_ang / pixel_ang[:, None], 0)
        parameters = None
        ctf_known = np.all([np.isfinite(chosen[name]) for name in CTF_COLUMNS[1:]], axis=0)
        if _known_somewhere(store, rows, ctf_known, "CTF", "--ctf"):
            _require_all(store, rows, np.isfinite(pixel_ang), "pixel size", "--ctf")
            columns = [pixel_ang, *(chosen[name] for name in CTF_COLUMNS[1:])]
            parameters = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        return cls(
            torch.from_numpy(np.asarray(rows, np.int64)),
            torch.from_numpy(rotations),
            torch.from_numpy(shift_px.astype(np.float32)),
            parameters,
        )

    def coded(self, index: Tensor, codes: tuple[Tensor, ...], scale: Tensor) -> CodedBatch:
        """Return the batch of some of the selection, given their codes and scales (B,)."""
        parameters = self.ctf_parameters
        return CodedBatch(
            self.rows[index],
            codes,
            scale,
            self.rotations[index],
            self.shifts_px[index],
            None if parameters is None else parameters[index],
        )


def _known_somewhere(
    store: ParticleRecords, rows: np.ndarray, known: np.ndarray, what: str, flag: str
) -> bool:
    """Return whether all rows have it, or False when none has; refuse a mixture."""
    if known.any():
        _require_all(store, rows, known, what, flag)
    return bool(known.any())


def _require_all(
    store: ParticleRecords, rows: np.ndarray, known: np.ndarray, what: str, flag: str
) -> None:
    if not known.all():
        row = int(rows[np.argmin(known)])
        raise InputError(
            f"{store.path}: row {row} (0-based) has no {what} "
            f"({int((~known).sum())} of {len(rows)} have none); give {flag}"
        )
