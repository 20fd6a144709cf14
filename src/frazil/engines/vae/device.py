"""Where training runs, and in which precision.

Owns: the choice of device and whether bfloat16 is native there. Does not own: what is computed.
"""

import torch

from frazil.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device that --device names; "auto" is the first GPU, or else the CPU.

    Raises
    ------
    InputError : no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: not a device; auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: not supported; auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: {torch.cuda.device_count()} GPUs found; give cpu")
    return device


def has_native_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # AMX or AVX512-BF16: without them bfloat16 is emulated, and slower than float32.
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)
