"""filter_star, filter_cs, filter_pkl, concat_pkls, view_cs_header: rows kept, nothing changed."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.cryosparc_files import read_cs, write_cs
from frazil.io.cs_rows import copy_cs_rows
from frazil.io.pickles import read_all_pickles, read_pickle, write_pickle

COUNT = 10
CHOSEN = [5, 1, 3, 8]
STAR = """# made by hand

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
1   300.000

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnGroupName #3
_rlnDefocusU #4
{rows}
# the end
"""


def row(number: int) -> str:
    """Return a row with spacing, zeros and quotes that no writer would make alike."""
    folder = "day one" if number % 3 else "day two"
    return (
        f"  {number + 1:06d}@p.mrcs '{folder}/mic{number % 2}.mrc'  g{number // 2}  1.{number}00E4"
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.star").write_text(STAR.format(rows="\n".join(map(row, range(COUNT)))))
    write_pickle(Path("ind.pkl"), np.array(CHOSEN))


def wanted(rows: list[int]) -> str:
    return STAR.format(rows="\n".join(map(row, rows)))


def test_filter_star_keeps_every_byte_but_the_rows_left_out():
    assert main(["filter_star", "p.star", "--ind", "ind.pkl", "-o", "new/out.star"]) == 0
    assert Path("new/out.star").read_text() == wanted(CHOSEN)


def test_filter_star_of_tilts_takes_whole_series_in_the_order_chosen():
    write_pickle(Path("ind.pkl"), np.array([3, 0]))
    assert main(["filter_star", "p.star", "--et", "--ind", "ind.pkl", "-o", "out.star"]) == 0
    assert Path("out.star").read_text() == wanted([6, 7, 0, 1])


def test_tilts_need_a_column_that_says_so(capsys: pytest.CaptureFixture[str]):
    Path("p.star").write_text(Path("p.star").read_text().replace("_rlnGroupName", "_rlnOther"))
    assert main(["filter_star", "p.star", "--et", "--ind", "ind.pkl", "-o", "out.star"]) == 2
    assert "--et needs a column" in capsys.readouterr().err


def test_filter_star_by_micrograph_writes_each_row_once():
    write_pickle(Path("ind.pkl"), np.arange(COUNT))
    assert main(["filter_star", "p.star", "-m", "--ind", "ind.pkl", "-o", "mics"]) == 0
    files = {path.name: path.read_text() for path in Path("mics").iterdir()}
    # mic0 is in both folders, so the folder is part of the name.
    assert set(files) == {f"day {d}_mic{m}.star" for d in ("one", "two") for m in "01"}
    assert files["day two_mic0.star"] == wanted([0, 6])
    assert files["day one_mic1.star"] == wanted([1, 5, 7])
    rows = sum(text.count("@p.mrcs") for text in files.values())
    assert rows == COUNT


def test_micrographs_of_one_folder_are_called_by_their_stem():
    Path("p.star").write_text(Path("p.star").read_text().replace("day two", "day one"))
    assert main(["filter_star", "p.star", "-m", "--ind", "ind.pkl", "-o", "mics"]) == 0
    assert sorted(path.name for path in Path("mics").iterdir()) == ["mic0.star", "mic1.star"]


def cs_table() -> np.ndarray:
    """Return rows of unlike columns, NaN bits included."""
    fields = [("uid", "<u8"), ("blob/path", "S9"), ("blob/shape", "<u4", (2,)), ("x", ">f4")]
    rows = np.zeros(COUNT, fields)
    rows["uid"] = np.arange(COUNT, dtype=np.uint64) + (1 << 63)
    rows["blob/path"] = [f"J1/{number}.mrc".encode() for number in range(COUNT)]
    rows["blob/shape"] = [(128, number) for number in range(COUNT)]
    rows["x"] = np.where(np.arange(COUNT) % 3, np.arange(COUNT), np.nan)
    return rows


def test_filter_cs_keeps_all_columns_byte_for_byte(monkeypatch: pytest.MonkeyPatch):
    write_cs(Path("p.cs"), cs_table())
    monkeypatch.setattr("frazil.io.cs_rows._BLOCK_BYTES", 2 * cs_table().dtype.itemsize)
    assert main(["filter_cs", "p.cs", "--ind", "ind.pkl", "-o", "out.cs"]) == 0
    got = read_cs(Path("out.cs"))
    assert got.dtype == cs_table().dtype
    assert got.tobytes() == cs_table()[CHOSEN].tobytes()
    loaded = np.load("out.cs", allow_pickle=False)
    assert loaded.tobytes() == got.tobytes()


def test_a_full_disk_leaves_no_part_of_a_cs():
    write_cs(Path("p.cs"), cs_table())

    def full(rows: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MemoryError, match="full"):
        copy_cs_rows(Path("p.cs"), Path("out.cs"), np.array(CHOSEN), full)
    assert not list(Path().glob("*out*")) and not list(Path().glob(".*out*"))


def test_view_cs_header_shows_every_column_of_the_first_row(capsys: pytest.CaptureFixture[str]):
    write_cs(Path("p.cs"), cs_table())
    assert main(["view_cs_header", "p.cs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10 particles"
    assert [line.split(":", 1)[0].strip() for line in lines[1:]] == list(cs_table().dtype.names)
    assert lines[1].endswith(str(1 << 63))
    assert lines[3].endswith("[128, 0]")


def poses(count: int = COUNT, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(start))
    return generator.random((count, 3, 3), np.float32), generator.random((count, 2), np.float32)


def test_filter_pkl_keeps_rotations_and_shifts_in_step():
    write_pickle(Path("pose.pkl"), poses())
    assert main(["filter_pkl", "pose.pkl", "--ind", "ind.pkl", "-o", "out.pkl"]) == 0
    got = read_pickle(Path("out.pkl"))
    assert isinstance(got, tuple)
    for found, whole in zip(got, poses(), strict=True):
        np.testing.assert_array_equal(found, whole[CHOSEN])
        assert found.dtype == whole.dtype


def test_filter_pkl_keeps_both_pickles_of_latents():
    mean, variance = np.arange(20.0).reshape(10, 2), np.arange(20.0, 40.0).reshape(10, 2)
    write_pickle(Path("z.9.pkl"), mean, variance)
    assert main(["filter_pkl", "z.9.pkl", "--first", "3", "-o", "out.pkl"]) == 0
    found = read_all_pickles(Path("out.pkl"))
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], mean[:3])
    np.testing.assert_array_equal(found[1], variance[:3])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "either --ind or --first"),
        (["--ind", "ind.pkl", "--first", "2"], "not both"),
        (["--first", "11"], "from 1 to the 10 rows"),
        (["--first", "0"], "from 1 to the 10 rows"),
        (["--ind", "far.pkl"], "row 10, but there are 10"),
        (["--ind", "twice.pkl"], "selects row 1 again"),
        (["--ind", "negative.pkl"], "row -1"),
    ],
)
def test_filter_pkl_refuses_rows_that_are_not_there(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    write_pickle(Path("pose.pkl"), poses())
    for name, rows in (("far", [1, 10]), ("twice", [1, 1]), ("negative", [-1])):
        write_pickle(Path(f"{name}.pkl"), np.array(rows))
    assert main(["filter_pkl", "pose.pkl", "-o", "out.pkl", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
    assert not Path("out.pkl").exists()


@pytest.mark.parametrize("value", [{"a": 1}, 3.0, (np.ones(3), np.ones(4)), []])
def test_filter_pkl_refuses_what_has_no_row_per_particle(value: object):
    write_pickle(Path("odd.pkl"), value)
    assert main(["filter_pkl", "odd.pkl", "--first", "1", "-o", "out.pkl"]) == 2
    assert not Path("out.pkl").exists()


def test_concat_pkls_joins_in_the_order_given():
    write_pickle(Path("a.pkl"), poses(4, 1))
    write_pickle(Path("b.pkl"), poses(3, 2))
    assert main(["concat_pkls", "b.pkl", "a.pkl", "b.pkl", "-o", "out.pkl"]) == 0
    parts = [poses(3, 2), poses(4, 1), poses(3, 2)]
    for found, whole in zip(read_pickle(Path("out.pkl")), zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(found, np.concatenate(whole))


def test_filter_undoes_concat():
    write_pickle(Path("a.pkl"), np.arange(12.0).reshape(6, 2))
    write_pickle(Path("b.pkl"), np.arange(8.0).reshape(4, 2))
    assert main(["concat_pkls", "a.pkl", "b.pkl", "-o", "ab.pkl"]) == 0
    assert main(["filter_pkl", "ab.pkl", "--first", "6", "-o", "out.pkl"]) == 0
    np.testing.assert_array_equal(read_pickle(Path("out.pkl")), np.arange(12.0).reshape(6, 2))


@pytest.mark.parametrize("other", [np.ones((3, 2)), (np.ones((3, 3, 3)),), np.ones((3, 3, 3), int)])
def test_concat_pkls_refuses_files_of_unlike_kinds(
    other: object, capsys: pytest.CaptureFixture[str]
):
    write_pickle(Path("a.pkl"), poses())
    write_pickle(Path("b.pkl"), other)
    assert main(["concat_pkls", "a.pkl", "b.pkl", "-o", "out.pkl"]) == 2
    assert "only files of one kind" in capsys.readouterr().err
    assert not Path("out.pkl").exists()


@pytest.mark.parametrize(
    "line",
    [
        "filter_star p.star --ind ind.pkl -o p.star",
        "filter_cs p.cs --ind ind.pkl -o p.cs",
        "filter_pkl pose.pkl --ind ind.pkl -o pose.pkl",
        "filter_pkl pose.pkl --ind ind.pkl -o ind.pkl",
        "concat_pkls pose.pkl ind.pkl -o ind.pkl",
    ],
)
def test_no_command_replaces_what_it_reads(line: str, capsys: pytest.CaptureFixture[str]):
    write_cs(Path("p.cs"), cs_table())
    write_pickle(Path("pose.pkl"), poses())
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(line.split()) == 2
    assert "would replace a file that is read" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in Path().iterdir()}
