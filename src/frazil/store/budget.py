"""How much memory and disk a process may use.

Owns: the limits of cgroup, SLURM, host and disk, and the reading and writing of sizes such as 4G.
Does not own: what is done with the memory.
"""

import os
import re
import shutil
from pathlib import Path

from frazil.errors import BudgetError, InputError

CGROUP_ROOT = Path("/sys/fs/cgroup")
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


def allowed_bytes(memory: str | None) -> int:
    """Return the ceiling that --memory sets; without it the default budget.

    Raises
    ------
    InputError : not a size.
    BudgetError : more than host, cgroup and SLURM allow.
    """
    if memory is None:
        return default_budget_bytes()
    asked, limit = parse_bytes(memory), memory_limit_bytes()
    if asked > limit:
        raise BudgetError(
            f"--memory {memory}: host, cgroup or SLURM allow {size_text(limit)}; "
            f"give at most --memory {limit >> 20}M"
        )
    return asked


def resident_bytes() -> int:
    """Return the memory that this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_disk_bytes(path: Path) -> int:
    """Return what may be written where `path` is, or will be: the nearest folder above decides."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(size_bytes: float) -> str:
    """Return a size with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}" if unit != "B" else f"{size_bytes:.0f} B"
        size_bytes /= 1000
    return f"{size_bytes:.4g} TB"


def memory_flag(size_bytes: float) -> str:
    """Return the --memory that allows this many bytes, in whole binary megabytes."""
    return f"--memory {-(-int(size_bytes) // (1 << 20))}M"


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
    """Return the limits of this process's cgroups (v1 and v2) and of their parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":
            found += _limits(CGROUP_ROOT, own, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(CGROUP_ROOT / "memory", own, "memory.limit_in_bytes")
    return found


def _limits(root: Path, own: str, name: str) -> list[int]:
    """Return what the files `name` say, from the cgroup `own` up to the root of its hierarchy."""
    folder = root / own.lstrip("/")
    folders = [folder, *(parent for parent in folder.parents if root in (parent, *parent.parents))]
    texts = [(f / name).read_text().strip() for f in folders if (f / name).is_file()]
    return [int(text) for text in texts if text.isdigit() and int(text) < 1 << 60]
