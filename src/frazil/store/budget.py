"""How much memory and disk a process may use.

Owns: the limits of cgroup, SLURM, host and disk, and the reading and writing of sizes such as 4G.
Does not own: what is done with the memory.
"""

import os
import re
import shutil
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Allowance:
    """The bytes of memory that a command may plan with, and who says so."""

    bytes: int
    why: str

    def __str__(self) -> str:
        return f"{size_text(self.bytes)} allowed ({self.why})"


def memory_limit() -> Allowance:
    """Return the smallest of the host's available memory, the cgroup's limit and SLURM's.

    The processes that `torchrun` starts on a machine share it evenly.
    """
    limits = [Allowance(_host_available_bytes(), "what the host has available")]
    limits += [Allowance(size, "the limit of the cgroup") for size in _cgroup_bytes()]
    limits += [Allowance(size, f"the limit of {name}") for name, size in _slurm_limits()]
    limit = min(limits, key=lambda limit: limit.bytes)
    processes = max(1, _number_of("LOCAL_WORLD_SIZE"))
    if processes == 1:
        return limit
    return Allowance(limit.bytes // processes, f"{limit.why}, for each of {processes} processes")


def memory_limit_bytes() -> int:
    """Return the bytes of `memory_limit`."""
    return memory_limit().bytes


def default_budget_bytes() -> int:
    """Return half of the limit: the default of --memory."""
    return memory_limit_bytes() // 2


def allowance(memory: str | None) -> Allowance:
    """Return the ceiling that --memory sets; without it half of the limit.

    Raises
    ------
    InputError : not a size.
    BudgetError : more than host, cgroup and SLURM allow.
    """
    limit = memory_limit()
    if memory is None:
        return Allowance(limit.bytes // 2, f"half of {limit.why}")
    asked = parse_bytes(memory)
    if asked > limit.bytes:
        raise BudgetError(
            f"--memory {memory}: host, cgroup or SLURM allow {size_text(limit.bytes)} "
            f"({limit.why}); give at most --memory {limit.bytes >> 20}M"
        )
    return Allowance(asked, f"--memory {memory}")


def allowed_bytes(memory: str | None) -> int:
    """Return the bytes of `allowance`."""
    return allowance(memory).bytes


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a command is about to write, what they are, and the space that there is.

    `folder` is where they go; `remedy` is a change that makes them fewer, "" where there is none.
    """

    bytes: int
    what: str
    folder: Path
    remedy: str = ""

    @property
    def free_bytes(self) -> int:
        """Free space where the bytes go."""
        return free_disk_bytes(self.folder)

    def line(self) -> str:
        """Return what is written, and the free space."""
        free = f"{size_text(self.free_bytes)} free at {self.folder}"
        return f"plan: write {size_text(self.bytes)} ({self.what}); {free}"

    def check(self) -> None:
        """Refuse what does not fit.

        Raises
        ------
        BudgetError : names the changes, each enough by itself, that would make it fit.
        """
        free = self.free_bytes
        if self.bytes > free:
            ways = [f"free {size_text(self.bytes - free)}", "write to another disk (-o)"]
            remedies = ", or ".join([*ways, *([self.remedy] if self.remedy else [])])
            raise BudgetError(
                f"{self.folder}: needs {size_text(self.bytes)} of disk ({self.what}), "
                f"{size_text(free)} are free there; {remedies}"
            )


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


def _slurm_limits() -> list[tuple[str, int]]:
    """Return (variable, bytes) of the memory that a SLURM job asked for on this node.

    SLURM sets one of the three variables, in megabytes; 0 of a node is all of it.
    """
    found = []
    for name, count in (
        ("SLURM_MEM_PER_NODE", 1),
        ("SLURM_MEM_PER_CPU", _number_of("SLURM_CPUS_ON_NODE")),
        ("SLURM_MEM_PER_GPU", _number_of("SLURM_GPUS_ON_NODE")),
    ):
        size = _number_of(name, 0) * count << 20
        if size:
            found.append((name, size))
    return found


def _number_of(name: str, otherwise: int = 1) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else otherwise


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
