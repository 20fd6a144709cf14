"""Images by row: the right ones, in the order asked, from stacks that were checked first."""

import threading
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io import images as images_module
from frazil.io.cryosparc import write_cs
from frazil.io.direct import is_cached
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import HEADER_BYTES, StackWriter, write_volume
from frazil.io.particles import ParticleTable, empty_rows
from frazil.io.paths import Places
from frazil.io.star import write_star
from tests.io.test_direct import forget


def stack(path: Path, count: int, side: int = 8, first: float = 0.0) -> Path:
    """Write a stack whose images are constant: first, first + 1, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = first + np.arange(count, dtype=np.float32)
    with StackWriter(path, (side, side), count, 1.5) as writer:
        writer.write(np.broadcast_to(values[:, None, None], (count, side, side)))
    return path


def table(pairs: list[tuple[int, int]], *paths: Path, **changes: Any) -> ParticleTable:
    rows = empty_rows(len(pairs))
    rows["source"], rows["index"] = np.array(pairs).T
    return ParticleTable(rows, tuple(str(path) for path in paths), origin="set.star", **changes)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=30),
    data=st.data(),
)
def test_any_rows_in_any_order_come_as_asked(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.is_dir():
        for number in range(3):
            stack(folder / f"{number}.mrcs", 10, first=100 * number)
    source = open_images(table(pairs, *(folder / f"{number}.mrcs" for number in range(3))))
    rows = data.draw(st.lists(st.integers(0, len(pairs) - 1), max_size=40))
    out = np.empty((len(rows), 8, 8), np.float32)
    assert source.read(rows, out) is out
    expected = [100 * pairs[row][0] + pairs[row][1] for row in rows]
    assert out[:, 0, 0].tolist() == expected and out[:, 7, 7].tolist() == expected
    assert source.box_px == 8 and source.count == len(source) == len(pairs)
    source.close()


def test_threads_may_share_a_source_and_files_stay_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "_MAX_OPEN_FILES", 3)
    paths = [stack(tmp_path / f"{number}.mrcs", 4, first=10 * number) for number in range(12)]
    source = open_images(table([(n, i) for n in range(12) for i in range(4)], *paths))
    expected = np.array([10 * n + i for n in range(12) for i in range(4)], np.float32)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            rows = rng.integers(0, 48, 20)
            if not np.array_equal(source.read(rows)[:, 3, 3], expected[rows]):
                wrong.append(seed)

    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 3
    source.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert source.read([5])[0, 0, 0] == expected[5]  # opens again


def test_a_missing_stack_names_the_first_row_and_how_many(tmp_path: Path) -> None:
    there = stack(tmp_path / "a.mrcs", 4)
    chosen = table(
        [(0, 0), (2, 0), (1, 0), (2, 1)], there, tmp_path / "b.mrcs", tmp_path / "c.mrcs"
    )
    with pytest.raises(
        MissingFileError, match=r"1 of 3 stacks found; .*row 1 .*c\.mrcs.*--datadir"
    ):
        open_images(chosen)
    assert open_images(chosen.take([0])).read([0]).shape == (1, 8, 8)  # unused ones may be missing


def test_boxes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    a, b = stack(tmp_path / "a.mrcs", 2), stack(tmp_path / "b.mrcs", 2, side=10)
    odd = stack(tmp_path / "odd.mrcs", 2, side=9)
    with StackWriter(tmp_path / "r.mrcs", (8, 10), 1, 1.0) as writer:
        writer.write(np.zeros((8, 10)))
    with pytest.raises(InputError, match=r"row 1 .*b\.mrcs has images of 10 px, .*a\.mrcs of 8 px"):
        open_images(table([(0, 0), (1, 0)], a, b))
    with pytest.raises(InputError, match="9 px; an even box is wanted"):
        open_images(table([(0, 0)], odd))
    with pytest.raises(InputError, match="10 x 8 px; square"):
        open_images(table([(0, 0)], tmp_path / "r.mrcs"))
    with pytest.raises(InputError, match=r"its box is 16 px, but the images in .* are 8 px"):
        open_images(table([(0, 0)], a, box_px=16))
    assert open_images(table([(0, 0)], a, box_px=16), any_box=True).box_px == 8
    with pytest.raises(InputError, match="no particles"):
        open_images(table([(0, 0)], a).take([]))


def test_rows_beyond_a_stack_or_its_whole_images_are_named(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.mrcs", 4)
    with pytest.raises(InputError, match=r"row 1 \(0-based\) wants image 4 .*has 4 \(1 rows"):
        open_images(table([(0, 0), (0, 4)], path))
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES + 2 * 256 + 100)
    whole = open_images(table([(0, 1), (0, 0)], path))
    assert whole.read([0, 1])[:, 0, 0].tolist() == [1, 0]
    with pytest.raises(CorruptDataError, match=r"row 2 .*image 3 .*2 of 4 images are whole"):
        open_images(table([(0, 0), (0, 1), (0, 3)], path))
    with pytest.raises(InputError, match="rows 0 to 2 wanted, there are 2"):
        whole.read([0, 2])


def test_a_stack_cut_after_opening_is_reported(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.mrcs", 4)
    source = open_images(table([(0, 3)], path))
    with path.open("r+b") as file:
        file.truncate(HEADER_BYTES + 100)
    with pytest.raises(CorruptDataError, match="became shorter"):
        source.read([0])


def test_a_stack_that_vanishes_after_opening_is_named(tmp_path: Path) -> None:
    paths = [stack(tmp_path / f"{name}.mrcs", 2) for name in "ab"]
    source = open_images(table([(0, 0), (1, 1)], *paths))
    assert source.read([1])[0, 0, 0] == 1
    source.close()
    paths[1].unlink()
    assert source.read([0])[0, 0, 0] == 0
    with pytest.raises(MissingFileError, match=r"b\.mrcs: is not there any more; put it back"):
        source.read([1])


def test_a_stack_is_opened_by_itself(tmp_path: Path) -> None:
    found = open_particles(stack(tmp_path / "a.mrcs", 3))
    assert found.box_px == 8 and (found.rows["pixel_size_ang"] == 1.5).all()
    assert not found.has_pose and found.notes == ()
    assert open_images(found).read([2, 0])[:, 0, 0].tolist() == [2, 0]


def test_a_volume_given_as_particles_is_read_as_images_and_said_so(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.mrcs", np.zeros((8, 8, 8)), 1.0)
    found = open_particles(tmp_path / "v.mrcs")
    assert len(found) == 8 and "says it is a volume" in found.notes[0]


def test_a_list_numbers_its_stacks_in_order_and_may_repeat_one(tmp_path: Path) -> None:
    stack(tmp_path / "s/a.mrcs", 2)
    stack(tmp_path / "s/b.mrcs", 3, first=10)
    (tmp_path / "s/list.txt").write_text("b.mrcs\r\n\r\n  a.mrcs\nb.mrcs")
    found = open_particles(tmp_path / "s/list.txt")
    assert len(found) == 8 and len(found.sources) == 2 and found.box_px == 8
    source = open_images(found)
    assert source.read(np.arange(8))[:, 0, 0].tolist() == [10, 11, 12, 0, 1, 10, 11, 12]
    (tmp_path / "other").mkdir()
    moved = (tmp_path / "s/list.txt").rename(tmp_path / "other/list.txt")
    with pytest.raises(
        MissingFileError, match=r"list\.txt: 0 of 2 .*missing: row 0 \(0-based\) b\.mrcs"
    ):
        open_particles(moved)
    assert len(open_particles(moved, Places(tmp_path / "s"))) == 8
    (tmp_path / "e.txt").write_text("\n\n")
    with pytest.raises(InputError, match="names no stack"):
        open_particles(tmp_path / "e.txt")


def test_preprocessed_stacks_are_fourier_images_of_side_d_plus_1(tmp_path: Path) -> None:
    stack(tmp_path / "X.0.ft.mrcs", 3, side=9)
    stack(tmp_path / "X.1.ft.mrcs", 2, side=9, first=50)
    (tmp_path / "X.ft.txt").write_text("X.0.ft.mrcs\nX.1.ft.mrcs\n")
    for name, count in (("X.ft.txt", 5), ("X.1.ft.mrcs", 2)):
        source = open_images(open_particles(tmp_path / name))
        assert (source.domain, source.box_px, source.side_px) == ("hartley", 8, 9)
        assert source.read(np.arange(count)).shape == (count, 9, 9)
        assert source.read([count - 1])[0, 0, 0] == 51
    assert open_images(open_particles(stack(tmp_path / "r.mrcs", 1))).domain == "real"
    (tmp_path / "mix.txt").write_text("X.0.ft.mrcs\nr.mrcs\n")
    with pytest.raises(InputError, match="mixes"):
        open_images(open_particles(tmp_path / "mix.txt"))


def test_a_star_file_reads_its_rows_and_takes_the_box_of_the_stack(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 4)
    names = ["3@a.mrcs", "1@a.mrcs", "1@a.mrcs"]
    write_star(tmp_path / "p.star", {"": {"_rlnImageName": names}})
    found = open_particles(tmp_path / "p.star")
    assert found.box_px == 8
    assert open_images(found).read([0, 1, 2])[:, 0, 0].tolist() == [2, 0, 0]


def test_what_cannot_be_particles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text("x")
    with pytest.raises(InputError, match=r"a\.pdb: particles in \.mrcs"):
        open_particles(tmp_path / "a.pdb")
    with pytest.raises(MissingFileError, match=r"none\.mrcs"):
        open_particles(tmp_path / "none.mrcs")
    path = stack(tmp_path / "a.mrcs", 1)
    for datadir in (tmp_path / "nowhere", path):
        with pytest.raises(MissingFileError, match=rf"--datadir .*{datadir.name}: no such folder"):
            open_particles(path, Places(datadir))


def test_an_image_past_4_gib_named_by_a_32_bit_index_of_a_cs_file_is_the_right_one(
    tmp_path: Path,
) -> None:
    # 16384 images of 256 px are 4 GiB; in 32 bits the place of image 16384 wraps to that of 0.
    side, index = 256, np.array([16384, 0], np.uint32)
    header = bytearray(stack(tmp_path / "one.mrcs", 1, side=side).read_bytes()[:HEADER_BYTES])
    header[8:12] = (16385).to_bytes(4, "little")
    with (tmp_path / "large.mrcs").open("wb") as file:  # sparse
        file.write(header)
        for row, value in zip(index.tolist(), (7.0, 3.0), strict=True):
            file.seek(HEADER_BYTES + row * side**2 * 4)
            file.write(np.full((side, side), value, "<f4").tobytes())
    array = np.zeros(2, [("uid", "<u8"), ("blob/path", "S10"), ("blob/idx", "<u4")])
    array["uid"], array["blob/path"], array["blob/idx"] = [1, 2], b"large.mrcs", index
    write_cs(tmp_path / "p.cs", array)
    with open_images(open_particles(tmp_path / "p.cs")) as images:
        assert images.read([0, 1])[:, 5, 5].tolist() == [7, 3]


@pytest.mark.parametrize("mode", [2, 12])
def test_images_past_the_page_cache_are_the_same_and_leave_nothing_there(
    tmp_path: Path, mode: int
) -> None:
    images = np.random.default_rng(0).standard_normal((64, 128, 128)).astype(np.float32)
    path = tmp_path / "p.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(images.astype(np.float16) if mode == 12 else images)
    table = open_particles(path)
    with open_images(table) as source:
        wanted = source.read([5, 6, 7, 40, 2])
    for cached in (True, False):
        if not cached:
            forget(path)
        assert is_cached(path) == cached
        with open_images(table, past_cache=True) as source:
            assert np.array_equal(source.read([5, 6, 7, 40, 2]), wanted)
        assert is_cached(path) == cached
