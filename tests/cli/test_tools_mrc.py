"""view_header, add_psize, flip_hand, invert_contrast, gen_mask: one change, the header kept."""

import errno
import os
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc import StackWriter, read_header, read_images, read_volume, write_volume
from frazil.io.mrc_edit import write_like

SIDE = 10


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A volume v.mrc with an origin, an extended header and start indices, pixel size 1.5 A."""
    monkeypatch.chdir(tmp_path)
    data = np.random.Generator(np.random.PCG64(1)).standard_normal((SIDE,) * 3).astype(np.float32)
    write_volume(Path("v.mrc"), data, 1.5)
    raw = bytearray(Path("v.mrc").read_bytes())
    struct.pack_into("<3i", raw, 16, -5, -4, -3)
    struct.pack_into("<3f", raw, 196, 7.0, 8.0, 9.0)
    struct.pack_into("<i", raw, 92, 32)
    Path("v.mrc").write_bytes(raw[:1024] + b"extended header, 32 bytes long!!" + raw[1024:])
    return data


def there() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def kept(name: str) -> tuple[object, ...]:
    """Return what must stay in a header, by another reader."""
    with mrcfile.open(name) as file:
        header, extended = file.header, file.extended_header.tobytes()
        cell = tuple(float(header.cella[axis]) for axis in "xyz")
        origin = tuple(float(header.origin[axis]) for axis in "xyz")
        starts = (int(header.nxstart), int(header.nystart), int(header.nzstart))
        return cell, origin, starts, int(header.ispg), int(header.mz), extended


def test_flip_hand_mirrors_z_about_the_origin_and_twice_is_the_identity(volume: np.ndarray):
    assert main(["flip_hand", "v.mrc"]) == 0
    flipped = read_volume(Path("v_flipped.mrc"))[0]
    middle = SIDE // 2
    for z in range(-middle + 1, middle):
        np.testing.assert_array_equal(flipped[middle + z], volume[middle - z])
    assert kept("v_flipped.mrc") == kept("v.mrc")
    assert main(["flip_hand", "v_flipped.mrc", "-o", "twice.mrc"]) == 0
    np.testing.assert_array_equal(read_volume(Path("twice.mrc"))[0], volume)
    assert (flipped != volume).any()


def test_flip_hand_mirrors_z_whatever_axis_of_the_file_it_is(volume: np.ndarray):
    raw = bytearray(Path("v.mrc").read_bytes())
    struct.pack_into("<3i", raw, 64, 3, 1, 2)  # columns z, rows x, sections y
    Path("w.mrc").write_bytes(raw)
    before = read_volume(Path("w.mrc"))[0]
    assert main(["flip_hand", "w.mrc"]) == 0
    after = read_volume(Path("w_flipped.mrc"))[0]
    np.testing.assert_array_equal(after[1:], before[1:][::-1])


def test_flip_hand_refuses_images(volume: np.ndarray, capsys: pytest.CaptureFixture[str]):
    with StackWriter(Path("p.mrcs"), (4, 4), 4, 1.0) as writer:
        writer.write(np.ones((4, 4, 4), np.float32))
    assert main(["flip_hand", "p.mrcs"]) == 2
    assert "images have no hand" in capsys.readouterr().err
    assert not Path("p_flipped.mrcs").exists()


def test_invert_contrast_negates_every_voxel_and_keeps_the_header(volume: np.ndarray):
    assert main(["invert_contrast", "v.mrc", "-o", "new/i.mrc"]) == 0
    np.testing.assert_array_equal(read_volume(Path("new/i.mrc"))[0], -volume)
    assert kept("new/i.mrc") == kept("v.mrc")
    with mrcfile.open("new/i.mrc") as file:
        assert float(file.header.dmin) == pytest.approx(-volume.max())
        assert float(file.header.dmean) == pytest.approx(-volume.mean(), abs=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (6, "u2"), (12, "f2")])
def test_every_mode_and_byte_order_is_inverted_as_float32(
    tmp_path: Path, order: str, mode: int, kind: str
):
    data = np.arange(27).reshape(3, 3, 3).astype(order + kind)
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, 3, 3, 3, mode, 0, 0, 0, 3, 3, 3)
    struct.pack_into(f"{order}3f", header, 40, 6.0, 6.0, 6.0)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    (tmp_path / "v.mrc").write_bytes(bytes(header) + data.tobytes())
    assert main(["invert_contrast", str(tmp_path / "v.mrc")]) == 0
    with mrcfile.open(tmp_path / "v_inverted.mrc") as file:  # strict: the stamp must be right
        np.testing.assert_array_equal(file.data, -data.astype(np.float32))
        assert float(file.voxel_size.x) == 2.0


def test_a_stack_is_read_and_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = np.arange(7 * 16, dtype=np.float32).reshape(7, 4, 4)
    path = tmp_path / "p.mrcs"
    with StackWriter(path, (4, 4), 7, 1.5) as writer:
        writer.write(images)
    monkeypatch.setattr("frazil.io.mrc_edit._BLOCK_BYTES", 2 * 64)
    largest = []
    read = read_images
    monkeypatch.setattr(
        "frazil.io.mrc_edit.read_images",
        lambda header, rows: largest.append(len(rows)) or read(header, rows),
    )
    assert main(["invert_contrast", str(path)]) == 0
    np.testing.assert_array_equal(read_images(tmp_path / "p_inverted.mrcs", np.arange(7)), -images)
    assert max(largest) == 2


def test_values_that_are_no_numbers_are_told(
    volume: np.ndarray, capsys: pytest.CaptureFixture[str]
):
    volume[2, 3, 4] = np.nan
    write_volume(Path("n.mrc"), volume, 1.0)
    assert main(["invert_contrast", "n.mrc"]) == 0
    assert "1 of 10 sections" in capsys.readouterr().out
    assert main(["invert_contrast", "v.mrc"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_add_psize_changes_nothing_but_the_cell_even_in_place(
    volume: np.ndarray, capsys: pytest.CaptureFixture[str]
):
    before = Path("v.mrc").read_bytes()
    assert main(["add_psize", "v.mrc", "--Apix", "1.73", "-o", "v.mrc"]) == 0
    after = Path("v.mrc").read_bytes()
    assert read_header(Path("v.mrc")).pixel_size_ang == pytest.approx(1.73)
    assert before[:40] + before[52:] == after[:40] + after[52:]
    assert before != after
    assert "origin in the header stays at [7.0, 8.0, 9.0]" in capsys.readouterr().out
    assert there() == ["v.mrc"]


def test_add_psize_copies_integer_stacks_as_they_are(tmp_path: Path):
    data = np.arange(2 * 16, dtype="<i2").reshape(2, 4, 4)
    with mrcfile.new(tmp_path / "p.mrcs") as file:
        file.set_data(data)
    assert main(["add_psize", str(tmp_path / "p.mrcs"), "-o", str(tmp_path / "q.mrcs")]) == 0
    with mrcfile.open(tmp_path / "q.mrcs", permissive=True) as file:
        assert file.data.dtype == data.dtype
        np.testing.assert_array_equal(file.data, data)
    assert read_header(tmp_path / "q.mrcs").pixel_size_ang == 1.0


@pytest.mark.parametrize("apix", ["0", "-1", "nan"])
def test_a_pixel_size_that_cannot_be_is_refused(
    volume: np.ndarray, apix: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["add_psize", "v.mrc", f"--Apix={apix}", "-o", "w.mrc"]) == 2
    assert "must be positive" in capsys.readouterr().err
    assert not Path("w.mrc").exists()


@pytest.mark.parametrize(
    "command",
    [["flip_hand"], ["invert_contrast"], ["add_psize", "-o", "out.mrc"]],
    ids=lambda command: command[0],
)
def test_a_cut_file_is_refused_and_nothing_is_left(
    volume: np.ndarray, command: list[str], capsys: pytest.CaptureFixture[str]
):
    Path("v.mrc").write_bytes(Path("v.mrc").read_bytes()[:-5])
    assert main([command[0], "v.mrc", *command[1:]]) == 2
    assert "cut short" in capsys.readouterr().err
    assert there() == ["v.mrc"]


def test_the_input_is_not_replaced(volume: np.ndarray, capsys: pytest.CaptureFixture[str]):
    before = Path("v.mrc").read_bytes()
    for command in ("flip_hand", "invert_contrast"):
        assert main([command, "v.mrc", "-o", "./v.mrc"]) == 2
        assert "would replace a file that is read" in capsys.readouterr().err
    assert Path("v.mrc").read_bytes() == before


def test_a_full_disk_leaves_the_old_file(volume: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    Path("out.mrc").write_bytes(b"old")

    def full(count: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    header = read_header(Path("v.mrc"))
    with pytest.raises(MemoryError, match=r"out\.mrc: the disk .* is full"):
        write_like(header, Path("out.mrc"), [volume], advance=full)
    assert Path("out.mrc").read_bytes() == b"old"
    assert there() == ["out.mrc", "v.mrc"]


def test_view_header_prints_what_another_reader_finds(
    volume: np.ndarray, capsys: pytest.CaptureFixture[str]
):
    assert main(["view_header", "v.mrc"]) == 0
    said = capsys.readouterr().out
    lines = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in lines.items()}
    with mrcfile.open("v.mrc") as file:
        header = file.header
        assert [int(found[n]) for n in ("nx", "nzstart", "next", "ispg")] == [10, -3, 32, 1]
        assert float(found["xlen"]) == float(header.cella.x)
        assert [float(found[n]) for n in ("xorg", "yorg", "zorg")] == [7.0, 8.0, 9.0]
        assert float(found["rms"]) == float(header.rms)
        assert float(found["amax"]) == float(header.dmax)
    assert found["labels"] == "['frazil']"
    assert "10 x 10 x 10 of float32, little-endian, 1.5 A/px" in said


@pytest.fixture
def blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A smooth ball b.mrc of 40 px, 2 A/px, off the centre."""
    monkeypatch.chdir(tmp_path)
    z, y, x = np.mgrid[:40, :40, :40]
    data = np.exp(-((z - 20) ** 2 + (y - 18) ** 2 + (x - 22) ** 2) / 18).astype(np.float32)
    write_volume(Path("b.mrc"), data, 2.0)
    return data


def test_gen_mask_grows_and_softens_by_what_is_asked_in_angstrom(blob: np.ndarray):
    flags = ["--threshold", "0.5", "--dilate", "6", "--dist", "8", "-p", "m.png"]
    assert main(["gen_mask", "b.mrc", "m.mrc", *flags]) == 0
    mask, pixel_size_ang = read_volume(Path("m.mrc"))
    assert pixel_size_ang == 2.0
    along_x = mask[20, 18]
    edge = np.flatnonzero(blob[20, 18] >= 0.5)[-1]
    assert (along_x[edge : edge + 4] == 1).all()  # 6 A are 3 px
    np.testing.assert_allclose(along_x[edge + 5], 0.5, atol=1e-6)  # 4 of 8 A
    assert (along_x[edge + 7 :] == 0).all()
    assert mask.min() == 0 and mask.max() == 1
    assert Path("m.png").read_bytes().startswith(b"\x89PNG")


def test_gen_mask_says_its_default_threshold(blob: np.ndarray, capsys: pytest.CaptureFixture[str]):
    assert main(["gen_mask", "b.mrc", "m.mrc", "--dilate", "4", "--dist", "4"]) == 0
    said = capsys.readouterr().out
    level = np.percentile(blob, 99.99) / 2
    assert f"threshold {level:.6g} (half of the 99.99 percentile)" in said
    assert "warning" not in said
    assert main(["gen_mask", "b.mrc", "m.mrc", "--dilate", "30"]) == 0
    assert "reaches the border" in capsys.readouterr().out


def test_gen_mask_takes_apix_for_the_file_s(blob: np.ndarray):
    common = ["gen_mask", "b.mrc", "--threshold", "0.5", "--dilate", "6", "--dist", "8"]
    assert main([*common[:2], "a.mrc", *common[2:], "--Apix", "4"]) == 0
    assert main([*common[:2], "b2.mrc", "--threshold", "0.5", "--dilate", "3", "--dist", "4"]) == 0
    a, b = (read_volume(Path(name)) for name in ("a.mrc", "b2.mrc"))
    np.testing.assert_array_equal(a[0], b[0])
    assert (a[1], b[1]) == (4.0, 2.0)


def breaks(blob: np.ndarray, how: str) -> list[str]:
    """Write the bad input; return the flags that go with it."""
    if how == "nan":
        blob[3, 4, 5] = np.nan
    write_volume(Path("bad.mrc"), blob, 0.0 if how == "no pixel size" else 2.0)
    return {"threshold": ["--threshold", "7"], "dilate": ["--dilate", "-1"]}.get(how, [])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", r"voxel (3, 4, 5)"),
        ("no pixel size", "give --Apix"),
        ("threshold", "no voxel is 7 or more"),
        ("dilate", "--dilate"),
    ],
)
def test_gen_mask_refuses_what_makes_no_mask(
    blob: np.ndarray, how: str, words: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["gen_mask", "bad.mrc", "m.mrc", *breaks(blob, how)]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
    assert not Path("m.mrc").exists()
