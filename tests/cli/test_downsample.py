"""frazil downsample: wrong input is one line and exit code 2, and nothing is half-written."""

from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc import StackWriter, read_header, write_volume
from frazil.io.pickles import write_pickle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stacks of 16 and 12 px, a cut one, a volume, and lists that name them."""
    for name, side in (("in", 16), ("other", 12)):
        with StackWriter(tmp_path / f"{name}.mrcs", (side, side), 4, 2.0) as writer:
            writer.write(np.ones((4, side, side), np.float32))
    (tmp_path / "cut.mrcs").write_bytes((tmp_path / "in.mrcs").read_bytes()[:-500])
    write_volume(tmp_path / "map.mrc", np.ones((16, 16, 16), np.float32), 2.0)
    write_volume(tmp_path / "odd.mrc", np.ones((15, 15, 15), np.float32), 2.0)
    star = "data_\n\nloop_\n_rlnImageName\n1@in.mrcs\n2@gone.mrcs\n"
    (tmp_path / "gone.star").write_text(star)
    (tmp_path / "in.star").write_text("data_\n\nloop_\n_rlnImageName\n1@in.mrcs\n")
    write_pickle(tmp_path / "ind.pkl", np.array([0, 4]))
    (tmp_path / "there.mrcs").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("in.mrcs -D 7 -o out.mrcs", "-D 7: the box must be an even number"),
        ("in.mrcs -D 32 -o out.mrcs", "-D 32: larger than the box of the images (16 px)"),
        ("map.mrc --is-vol -D 32 -o out.mrc", "larger than the box of the volume (16 px)"),
        ("odd.mrc --is-vol -D 8 -o out.mrc", "its side is 15 px"),
        ("in.mrcs --is-vol -D 8 -o out.mrc", "a cubic volume is wanted"),
        ("gone.star -D 8 -o out.mrcs", "missing: row 1 (0-based) gone.mrcs"),
        ("nothing.mrcs -D 8 -o out.mrcs", "no such file"),
        ("cut.mrcs -D 8 -o out.mrcs", "cut short: 3 of 4 images are whole"),
        ("in.mrcs -D 8 -o out.mrcs --ind ind.pkl", "entry 1 (0-based) is row 4"),
        ("in.mrcs -D 8 -o out.mrcs --ind none.pkl", "none.pkl: no such file"),
        ("in.mrcs -D 8 -o there.mrcs", "there.mrcs: exists already; give --overwrite"),
        ("in.mrcs -D 8 -o in.mrcs --overwrite", "would replace a file that is read"),
        ("in.star -D 8 -o small.star --overwrite", "give --outdir"),
        ("map.mrc --is-vol -D 8 -o map.mrc --overwrite", "would replace the file that is read"),
        ("in.mrcs -D 8 -o out.star", "needs a .star input"),
        ("in.mrcs -D 8 -o out.npy", "the name must end in"),
        ("in.mrcs -D 8 -o out.mrcs --outdir d", "--outdir d: is for .star output"),
        ("in.star -D 8 -o out.star --chunk 2", "--chunk 2: is for .mrcs and .txt"),
        ("in.mrcs -D 8 -o out.mrcs --chunk 0", "--chunk 0: must be at least 1"),
        ("map.mrc --is-vol -D 8 -o out.mrc --ind ind.pkl", "has no particles to select"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["downsample", *arguments.split()]) == 2
    captured = capsys.readouterr()
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("frazil downsample: error: ")
    assert said in line
    assert not captured.out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_overwrite_replaces_a_complete_output(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command = ["downsample", "in.mrcs", "-D", "8", "-o", "there.mrcs", "--overwrite"]
    assert main(command) == 0
    assert read_header(folder / "there.mrcs").nx == 8


def test_lines_go_to_stdout_and_progress_to_stderr(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["downsample", "in.mrcs", "-D", "8", "-o", "new.mrcs"]) == 0
    captured = capsys.readouterr()
    read, written, done = captured.out.splitlines()
    assert read.startswith("plan: read 4.1 kB (4 images of 16 px) on ") and "allowed (" in read
    assert written.startswith("plan: write 1.02 kB (4 images of 8 px); ")
    assert done == "new.mrcs: 4 images of 8 px, 4 A/px"
    assert "4/4" in captured.err
