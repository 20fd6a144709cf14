"""Sizes are read as people write them; the limit is the smallest that anyone sets."""

import os
from pathlib import Path

import pytest

from frazil.errors import BudgetError, InputError
from frazil.store import budget
from frazil.store.budget import (
    Allowance,
    DiskNeed,
    allowance,
    default_budget_bytes,
    free_disk_bytes,
    memory_flag,
    memory_limit_bytes,
    parse_bytes,
    size_text,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("800M", 800 << 20),
        ("4G", 4 << 30),
        ("4GB", 4 << 30),
        ("4 gib", 4 << 30),
        ("1.5T", 3 << 39),
        ("2k", 2048),
        (" 7 ", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "4X", "four", "1e9", "4G5", "1.G", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a size; write for example"):
        parse_bytes(text)


@pytest.fixture
def big_host(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(budget, "_host_available_bytes", lambda: 64 << 30)
    monkeypatch.setattr(budget, "_cgroup_bytes", lambda: [])
    for name in [name for name in os.environ if name.startswith(("SLURM_", "LOCAL_WORLD_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_the_smallest_limit_counts(big_host: pytest.MonkeyPatch) -> None:
    assert memory_limit_bytes() == 64 << 30
    big_host.setattr(budget, "_cgroup_bytes", lambda: [20 << 30, 30 << 30])
    assert memory_limit_bytes() == 20 << 30
    big_host.setenv("SLURM_MEM_PER_NODE", "4096")
    assert memory_limit_bytes() == 4 << 30 and default_budget_bytes() == 2 << 30


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, 6 << 30),
        ({"SLURM_MEM_PER_CPU": "1024"}, 1 << 30),
        ({"SLURM_MEM_PER_NODE": "0"}, 64 << 30),  # all of the node's
        ({"SLURM_MEM_PER_NODE": "plenty"}, 64 << 30),
        ({"SLURM_MEM_PER_GPU": "8192", "SLURM_GPUS_ON_NODE": "2"}, 16 << 30),
        ({"SLURM_MEM_PER_GPU": "8192"}, 8 << 30),
    ],
)
def test_slurm_limits(
    big_host: pytest.MonkeyPatch, environment: dict[str, str], limit: int
) -> None:
    for name, value in environment.items():
        big_host.setenv(name, value)
    assert memory_limit_bytes() == limit


def test_who_sets_the_limit_is_said(big_host: pytest.MonkeyPatch) -> None:
    assert str(allowance(None)) == "34.4 GB allowed (half of what the host has available)"
    big_host.setattr(budget, "_cgroup_bytes", lambda: [20 << 30])
    assert allowance(None).why == "half of the limit of the cgroup"
    big_host.setenv("SLURM_MEM_PER_CPU", "1024")
    assert allowance(None).why == "half of the limit of SLURM_MEM_PER_CPU"
    assert allowance("1G") == Allowance(1 << 30, "--memory 1G")
    with pytest.raises(BudgetError, match=r"SLURM_MEM_PER_CPU\); give at most --memory 1024M"):
        allowance("2G")


def test_the_processes_of_torchrun_share_what_there_is(big_host: pytest.MonkeyPatch) -> None:
    big_host.setenv("LOCAL_WORLD_SIZE", "8")
    assert allowance(None) == Allowance(
        4 << 30, "half of what the host has available, for each of 8 processes"
    )
    assert allowance("8G").bytes == 8 << 30  # of one process, so that all of them have room
    with pytest.raises(BudgetError, match="give at most --memory 8192M"):
        allowance("9G")


def test_what_does_not_fit_the_disk_is_refused_with_every_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "free_disk_bytes", lambda path: 5_000_000)
    fits = DiskNeed(5_000_000, "maps", tmp_path)
    fits.check()
    assert fits.line() == f"plan: write 5 MB (maps); 5 MB free at {tmp_path}"
    with pytest.raises(BudgetError, match="free 1 MB, or write to another disk") as refusal:
        DiskNeed(6_000_000, "maps", tmp_path, "a smaller -D").check()
    assert str(refusal.value).endswith("or a smaller -D")


def test_this_machine_has_a_limit_within_its_memory() -> None:
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    assert 0 < memory_limit_bytes() <= total


def test_free_space_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    there, later = free_disk_bytes(tmp_path), free_disk_bytes(tmp_path / "no" / "such" / "X.frz")
    assert there > 0 and abs(there - later) < 1 << 30


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 12_345_678_901])
def test_the_memory_flag_that_is_suggested_is_enough_and_can_be_read(size: int) -> None:
    allowed = parse_bytes(memory_flag(size).removeprefix("--memory "))
    assert size <= allowed < size + (1 << 20)


def test_sizes_are_written_with_their_unit() -> None:
    assert [size_text(s) for s in (999, 12_900, 18e9, 2.5e12)] == [
        "999 B",
        "12.9 kB",
        "18 GB",
        "2.5 TB",
    ]


def test_limits_of_a_cgroup_and_its_parents_are_found(tmp_path: Path) -> None:
    for folder, text in (("", "max"), ("jobs", "5000"), ("jobs/mine", "9000"), ("other", "10")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "memory.max").write_text(f"{text}\n")
    assert sorted(budget._limits(tmp_path, "/jobs/mine", "memory.max")) == [5000, 9000]
    assert budget._limits(tmp_path, "/", "memory.max") == []
