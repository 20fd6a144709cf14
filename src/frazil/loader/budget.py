"""How much memory a process may use.

Owns: the limits of cgroup, SLURM and host, and the reading of sizes such as 4G. Does not own: what
is done with the memory.
"""

import os
import re
from pathlib import Path

from frazil.errors import InputError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_bytes(text: str) -> int:
    """Return the bytes of "800M", "4G", "4GB", "1.5T" or a plain number.

    Raises
    ------
    InputError : not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not match:
        raise InputError(f"--memory {text}: not a size; write for example 800M or 4G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def memory_limit_bytes() -> int:
    """Return the smallest of the host's available memory, the cgroup's limit and SLURM's."""
    limits = [_host_available_bytes(), _slurm_bytes(), *_cgroup_bytes()]
    return min(limit for limit in limits if limit is not None)


def default_budget_bytes() -> int:
    """Return half of the limit: the default of --memory."""
    return memory_limit_bytes() // 2


def _host_available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass  # not Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _slurm_bytes() -> int | None:
    per_node = os.environ.get("SLURM_MEM_PER_NODE")
    per_cpu = os.environ.get("SLURM_MEM_PER_CPU")
    if per_node and per_node.isdigit():
        return (int(per_node) << 20) or None  # 0: all of the node's
    if per_cpu and per_cpu.isdigit():
        return (int(per_cpu) * int(os.environ.get("SLURM_CPUS_ON_NODE", "1")) << 20) or None
    return None


def _cgroup_bytes() -> list[int]:
    """Return the limits of this process's cgroup (v2) and its parents, and of v1."""
    root = Path("/sys/fs/cgroup")
    files = [root / "memory" / "memory.limit_in_bytes"]
    try:
        own = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].split(":")[-1]
    except (FileNotFoundError, IndexError):
        own = "/"
    folder = root / own.lstrip("/")
    while True:
        files.append(folder / "memory.max")
        if folder == root or root not in folder.parents:
            break
        folder = folder.parent
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit() and int(text) < 1 << 60]
