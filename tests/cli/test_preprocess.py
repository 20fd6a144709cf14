"""`frazil preprocess` from the command line: what it prints, its exit codes, and how it stops."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.images import open_images, open_particles
from frazil.preprocess import pipeline, plan, prepared
from frazil.preprocess.settings import PackSettings
from frazil.store import writer
from frazil.store.reader import ParticleStore
from tests.store.made import all_files, make_images, with_metadata, write_stack

BOX = 24
ARGUMENTS = ["--max-threads", "1"]


@pytest.fixture
def particles(tmp_path: Path) -> Path:
    return write_stack(tmp_path / "particles.mrcs", make_images(20, BOX))


def preprocess(*arguments: object) -> int:
    return main(["preprocess", *map(str, arguments), *ARGUMENTS])


def test_a_store_is_packed_and_described(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder" / "X.frz"
    assert preprocess(particles, "-o", out, "-D", 16) == 0
    printed = capsys.readouterr().out
    assert f"{particles}: 20 particles in 1 stacks; with pixel size" in printed
    assert f"{out}: 20 particles, 20 images of 16 px, 2.25 A/px, int8" in printed
    assert "precision: adds at most 0.0" in printed
    store = ParticleStore.open(out)
    assert (store.box_px, store.count) == (16, 20)


def test_poses_ctf_and_selection_travel_into_the_store(particles: Path, tmp_path: Path) -> None:
    table = with_metadata(open_particles(particles))
    box_ang = BOX * 1.5
    poses = (table.rows["rotation"].astype(np.float64), table.rows["shift_ang"] / box_ang)
    ctf = np.concatenate([np.full((20, 1), BOX), table.ctf_array()], axis=1).astype(np.float32)
    for name, content in (("poses", poses), ("ctf", ctf), ("ind", np.arange(3, 20, 4))):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
    flags = [x for name in ("poses", "ctf", "ind") for x in (f"--{name}", tmp_path / f"{name}.pkl")]
    assert preprocess(particles, "-o", tmp_path / "X.frz", *flags) == 0
    store = ParticleStore.open(tmp_path / "X.frz")
    kept = table.rows[3:20:4]
    assert np.array_equal(store.rows["index"], kept["index"])
    for column in ("rotation", "shift_ang", "defocus_v_ang", "pixel_size_ang"):
        assert np.allclose(store.rows[column], kept[column], rtol=1e-5, atol=1e-5), column
    assert store.manifest.dropped == {"--ind": 15} and store.manifest.rows_in == 20


@pytest.mark.parametrize("name", ["X.mrcs", "X.txt"])
def test_fourier_stacks_are_written(particles: Path, tmp_path: Path, name: str) -> None:
    assert preprocess(particles, "-o", tmp_path / "d" / name, "--chunk", 8, "-b", 100) == 0
    table = open_particles(tmp_path / "d" / "X.ft.txt")
    assert len(table.sources) == 3
    with open_images(table) as images:
        assert images.domain == "hartley" and len(images) == 20


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of an error; fails when there is more than that and progress bars."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "it/s" not in line]
    errors = [line for line in lines if line.startswith("frazil preprocess: error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0]
    return errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "X.star"], "-o X.star: the name must end in .frz, .mrcs or .txt"),
        (["-o", "X.frz", "-D", 15], "-D 15"),
        (["-o", "X.frz", "-D", 30], "-D 30: larger than the box of the images (24 px)"),
        (["-o", "X.mrcs", "--chunk", 0], "--chunk 0: must be at least 1"),
        (["-o", "X.frz", "--window-r", 1.5], "--window-r"),
        (["-o", "X.frz", "--ind", "none.pkl"], "none.pkl"),
        (["-o", "particles.frz"], "particles.frz: exists already; give --overwrite"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    particles: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(particles.parent)
    assert preprocess(particles, "-o", "particles.frz") == 0
    before = sorted(path.name for path in Path().iterdir())
    capsys.readouterr()
    assert preprocess(particles, *arguments) == 2
    assert message in error_of(capsys)
    assert sorted(path.name for path in Path().iterdir()) == before


@pytest.mark.parametrize("filler_kb", [800, 400, 1024])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    filler_kb: int,
) -> None:
    # The store takes 0.4 MB: the disk of 1 MB is full in packing, in sealing, from the start.
    # Others filled it meanwhile, so the plan knew nothing of it.
    monkeypatch.setattr(plan, "free_disk_bytes", lambda path: 1 << 30)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root: a really full disk is not proved here")
    try:
        stack = write_stack(tmp_path / "particles.mrcs", make_images(500, 32))
        filler, out = disk / "filler", disk / "X.frz"
        filler.write_bytes(bytes(filler_kb << 10))
        monkeypatch.setattr("frazil.preprocess.pipeline.APPEND_BYTES", 1 << 16)
        monkeypatch.setattr("frazil.preprocess.prepared.TASK_BYTES", 1 << 19)
        assert preprocess(stack, "-o", out) == 2
        assert "is full" in error_of(capsys)
        assert not out.exists()
        filler.unlink()
        assert preprocess(stack, "-o", out) == 0
        assert list(ParticleStore.open(out).verify())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_plan_is_printed_and_memory_bounds_the_threads(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["-D", 16, "-o", tmp_path / "X.frz"]
    whole = plan.plan_packing(open_particles(particles), tmp_path, PackSettings(box_px=16))
    memory = f"{whole.buffer_bytes(2)}"
    arguments = [particles, *settings, "--memory", memory, "--max-threads", 5]
    assert main(["preprocess", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "plan: read 46.1 kB (20 images of 24 px), write " in printed
    assert "plan: 2 threads of 5, for the memory; at most " in printed


@pytest.mark.parametrize("name", ["X.frz", "X.mrcs"])
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    particles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(plan, "free_disk_bytes", lambda path: 5000)
    out = tmp_path / "new" / name
    assert preprocess(particles, "-o", out) == 2
    message = error_of(capsys)
    assert f"{out}: needs " in message and "another disk (-o)" in message
    assert not out.parent.exists()


# Runs the command in a process of its own, with small blocks and a commit after each.
DRIVER = """
import sys
from tests.cli.test_preprocess import SIZES
from frazil.preprocess import pipeline, prepared, plan
from frazil.store import writer
for (module, name), value in SIZES.items():
    setattr({"writer": writer, "pipeline": pipeline, "prepared": prepared}[module], name, value)
from frazil.cli.main import main
sys.argv[0] = "frazil"
sys.exit(main())
"""
SIZES = {
    ("writer", "SHARD_BYTES"): 1 << 16,
    ("writer", "BLOCK_ROWS"): 16,
    ("pipeline", "BLOCK_ROWS"): 16,
    ("prepared", "TASK_BYTES"): 1 << 16,
    ("pipeline", "APPEND_BYTES"): 1 << 16,
    ("pipeline", "COMMIT_BYTES"): 1 << 16,
}


def test_a_killed_command_goes_on_and_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for (module, name), value in SIZES.items():
        monkeypatch.setattr(
            {"writer": writer, "pipeline": pipeline, "prepared": prepared}[module], name, value
        )
    stack = write_stack(tmp_path / "particles.mrcs", make_images(2000, 32))
    out = tmp_path / "X.frz"
    arguments = ["preprocess", str(stack), "-o", str(out), *ARGUMENTS]
    monkeypatch.setattr(sys, "argv", ["frazil", *arguments])
    assert main() == 0
    whole = all_files(out)
    shutil.rmtree(out)
    killed = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    buckets = tmp_path / "X.frz.partial" / "buckets"
    while killed.poll() is None and packed_bytes(buckets) < 100_000:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not out.exists() and packed_bytes(buckets) >= 100_000
    assert main() == 0
    assert all_files(out) == whole
    assert not list(tmp_path.glob("*.partial"))


def packed_bytes(buckets: Path) -> int:
    return sum(path.stat().st_size for path in buckets.glob("0*.bin")) if buckets.exists() else 0
