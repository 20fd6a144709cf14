"""MRC: every mode, order and header that is met, against mrcfile; and the ways it goes wrong."""

import os
import struct
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, InputError, MissingFileError
from frazil.io.mrc import (
    HEADER_BYTES,
    StackWriter,
    read_header,
    read_images,
    read_volume,
    write_volume,
)

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def raw_mrc(
    data: np.ndarray[Any, Any],
    mode: int,
    order: str = "<",
    *,
    stamp: bytes | None = None,
    extended: bytes = b"",
    cell_ang: float = 0.0,
    magic: bytes = b"MAP ",
    imod_flags: int | None = None,
) -> bytes:
    """Return the bytes of an MRC file written by hand, independent of frazil's writer."""
    nz, ny, nx = data.shape
    header = bytearray(HEADER_BYTES)
    struct.pack_into(f"{order}10i", header, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, nz)
    struct.pack_into(f"{order}3f", header, 40, cell_ang * nx, cell_ang * ny, cell_ang * nz)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}i", header, 92, len(extended))
    if imod_flags is not None:
        struct.pack_into(f"{order}2i", header, 152, 1146047817, imod_flags)
    header[208:212] = magic
    header[212:216] = stamp or (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    return bytes(header) + extended + data.astype(data.dtype.newbyteorder(order)).tobytes()


def example(mode: int, shape: tuple[int, ...] = (5, 6, 4), seed: int = 0) -> np.ndarray[Any, Any]:
    """Return random data over the whole range of a mode."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(DTYPES[mode])
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=shape, endpoint=True, dtype=dtype)


def oracle(path: Path) -> np.ndarray[Any, Any]:
    """Return what mrcfile reads, complaints about the header aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as mrc:
            return np.array(mrc.data)


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stamp", [None, b"\0\0\0\0"])
@pytest.mark.parametrize("extended", [b"", b"EXT" * 40])
def test_every_mode_and_order_reads_as_mrcfile_does(
    tmp_path: Path, mode: int, order: str, stamp: bytes | None, extended: bytes
) -> None:
    data = example(mode)
    path = tmp_path / "a.mrcs"
    path.write_bytes(raw_mrc(data, mode, order, stamp=stamp, extended=extended, cell_ang=1.25))
    header = read_header(path)
    assert (header.nx, header.ny, header.nz, header.mode) == (4, 6, 5, mode)
    assert header.pixel_size_ang == pytest.approx(1.25)
    assert header.byte_order == ("<" if mode == 0 else order)
    images = read_images(path, [4, 0, 1, 2, 2])
    assert images.dtype == np.float32
    if (mode, order, stamp) != (0, ">", b"\0\0\0\0"):  # mrcfile takes it for little endian
        assert np.array_equal(images, oracle(path)[[4, 0, 1, 2, 2]].astype(np.float32))
    assert np.array_equal(images, data[[4, 0, 1, 2, 2]].astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stamp_that_contradicts_the_numbers_is_ignored(tmp_path: Path, order: str) -> None:
    wrong = b"\x11\x11\0\0" if order == "<" else b"\x44\x44\0\0"
    for mode in DTYPES:
        data = example(mode, (3, 256, 256))
        path = tmp_path / f"{mode}.mrcs"
        path.write_bytes(raw_mrc(data, mode, order, stamp=wrong, magic=b"\0\0\0\0"))
        assert np.array_equal(read_images(path, [2]), data[[2]].astype(np.float32))


@pytest.mark.parametrize(
    ("flags", "unsigned"), [(None, False), (1, False), (0, True), (2, True), (3, False)]
)
def test_mode_0_is_signed_unless_imod_says_otherwise(
    tmp_path: Path, flags: int | None, unsigned: bool
) -> None:
    data = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    path = tmp_path / "a.mrc"
    path.write_bytes(raw_mrc(data, 0, imod_flags=flags))
    assert read_header(path).unsigned_bytes == unsigned
    expected = data if unsigned else data.view(np.int8)
    assert np.array_equal(read_images(path, [0]), expected.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(
    box=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_what_the_writer_writes_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    box: tuple[int, int],
    sizes: list[int],
    data: st.DataObject,
) -> None:
    count = max(1, sum(sizes))
    images = np.random.default_rng(count).normal(size=(count, *box)).astype(np.float32)
    path = tmp_path_factory.mktemp("w") / "a.mrcs"
    with StackWriter(path, box, count, 1.5) as writer:
        start = 0
        for size in sizes:
            writer.write(images[start : start + size])
            start += size
        writer.write(images[start:])
    wanted = data.draw(st.lists(st.integers(0, count - 1), max_size=12))
    assert np.array_equal(read_images(path, wanted), images[wanted])
    with mrcfile.open(path) as mrc:
        assert np.array_equal(mrc.data.reshape(images.shape), images)
        assert float(mrc.voxel_size.x) == 1.5
        assert int(mrc.header.ispg) == 0
        assert float(mrc.header.dmax) == pytest.approx(images.max())
        assert float(mrc.header.rms) == pytest.approx(images.std(), rel=1e-4)


def test_volumes_come_home_and_are_valid_for_mrcfile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    write_volume(tmp_path / "v.mrc", volume, 2.5)
    back, pixel_size_ang = read_volume(tmp_path / "v.mrc")
    assert np.array_equal(back, volume) and pixel_size_ang == 2.5
    assert mrcfile.validate(tmp_path / "v.mrc")
    assert "appears to be valid" in capsys.readouterr().out
    with mrcfile.open(tmp_path / "v.mrc") as mrc:
        assert mrc.is_volume() and np.array_equal(mrc.data, volume)


def test_a_volume_with_other_axes_is_turned_to_z_y_x(tmp_path: Path) -> None:
    volume = np.random.default_rng(1).normal(size=(4, 4, 4)).astype(np.float32)
    raw = bytearray(raw_mrc(volume.transpose(1, 2, 0), 2))  # file axes: y, x, z slow to fast
    struct.pack_into("<3i", raw, 64, 3, 1, 2)
    (tmp_path / "v.mrc").write_bytes(raw)
    assert np.array_equal(read_volume(tmp_path / "v.mrc")[0], volume)


def test_a_stack_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "a.mrcs").write_bytes(raw_mrc(example(2, (3, 4, 4)), 2))
    with pytest.raises(InputError, match="cubic volume is wanted, this is 4 x 4 x 3"):
        read_volume(tmp_path / "a.mrcs")


@pytest.mark.parametrize("written", [2, 4])
def test_a_stack_with_another_count_is_not_left_behind(tmp_path: Path, written: int) -> None:
    with (
        pytest.raises(InputError, match="announced"),
        StackWriter(tmp_path / "a.mrcs", (4, 4), 3, 1.0) as writer,
    ):
        writer.write(np.zeros((written, 4, 4)))
    assert not list(tmp_path.iterdir())


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        StackWriter(tmp_path / "a.mrcs", (4, 4), 3, 1.0) as writer,
    ):
        writer.write(np.zeros((1, 4, 4)))
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_the_writer_refuses_another_box(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"\(4, 4\) px wanted, not \(5, 4\)"),
        StackWriter(tmp_path / "a.mrcs", (4, 4), 3, 1.0) as writer,
    ):
        writer.write(np.zeros((1, 5, 4)))


def test_non_finite_pixels_are_written_as_they_are(tmp_path: Path) -> None:
    images = np.full((1, 2, 2), np.inf, np.float32)
    images[0, 0] = [np.nan, -np.inf]
    with StackWriter(tmp_path / "a.mrcs", (2, 2), 1, 1.0) as writer:
        writer.write(images)
    assert np.array_equal(read_images(tmp_path / "a.mrcs", [0]), images, equal_nan=True)


def test_a_truncated_stack_serves_its_whole_images_and_names_the_missing(tmp_path: Path) -> None:
    data = example(2, (5, 4, 4))
    path = tmp_path / "short.mrcs"
    path.write_bytes(raw_mrc(data, 2)[:-100])  # images 3 and 4 are hit
    assert read_header(path).whole_images == 3
    assert np.array_equal(read_images(path, [2, 0]), data[[2, 0]])
    with pytest.raises(CorruptDataError, match=r"short\.mrcs: .*image 3 .*3 of 5 images are whole"):
        read_images(path, [0, 3])


@pytest.mark.parametrize("index", [-1, 5])
def test_an_image_that_the_header_does_not_have_is_refused(tmp_path: Path, index: int) -> None:
    (tmp_path / "a.mrcs").write_bytes(raw_mrc(example(2), 2))
    with pytest.raises(InputError, match=f"image {index} .*has 5 images"):
        read_images(tmp_path / "a.mrcs", [0, index])


@pytest.mark.parametrize("index_type", [np.uint32, np.int32, np.int64, np.uint64])
def test_images_beyond_4_and_8_gib_are_the_right_ones(tmp_path: Path, index_type: type) -> None:
    side, count = 256, 40_000  # 10.5 GB declared; a sparse file takes no disk
    frame_bytes = side * side * 4
    path = tmp_path / "sparse.mrcs"
    path.write_bytes(raw_mrc(np.zeros((1, side, side), np.float32), 2)[:HEADER_BYTES])
    marks = [0, 1, 8191, 16383, 16384, 16385, 32767, 32768, 32769, 39_999]
    with path.open("r+b") as file:
        file.write(struct.pack("<3i", side, side, count))
        file.truncate(HEADER_BYTES + count * frame_bytes)
        for mark in marks:
            pixels = np.full(4, mark + 1, np.float32).tobytes()
            os.pwrite(file.fileno(), pixels, HEADER_BYTES + mark * frame_bytes)
    assert path.stat().st_size > 1 << 33
    assert path.stat().st_blocks * 512 < 1 << 22
    images = read_images(path, np.array(marks, index_type))
    assert images[:, 0, 0].tolist() == [mark + 1 for mark in marks]
    # Positive control: the arithmetic that returned particle 0 for particle 16384.
    assert int(np.uint32(16384) * np.array(frame_bytes, np.uint32)) == 0


def test_many_runs_over_several_requests_keep_their_order(tmp_path: Path) -> None:
    count = 700
    images = np.zeros((count, 96, 96), np.float32)  # 25.8 MB: more than one request
    images += np.arange(count, dtype=np.float32)[:, None, None]
    (tmp_path / "a.mrcs").write_bytes(raw_mrc(images, 2))
    wanted = np.concatenate([np.arange(100, count), np.arange(99), [5, 5, 4]])
    assert np.array_equal(read_images(tmp_path / "a.mrcs", wanted), images[wanted])


@pytest.mark.parametrize(
    ("magic", "command"),
    [
        (b"\x1f\x8b\x08", "gunzip"),
        (b"BZh9", "bunzip2"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
    ],
)
def test_compressed_stacks_are_refused_with_the_command(
    tmp_path: Path, magic: bytes, command: str
) -> None:
    (tmp_path / "a.mrcs").write_bytes(magic + bytes(2000))
    with pytest.raises(InputError, match=command):
        read_header(tmp_path / "a.mrcs")


@pytest.mark.parametrize("mode", [3, 4, 16])
def test_modes_that_are_no_images_are_refused_with_a_remedy(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a.mrcs").write_bytes(raw_mrc(example(2), mode))
    with pytest.raises(InputError, match=f"mode {mode} is .*convert"):
        read_header(tmp_path / "a.mrcs")


@pytest.mark.parametrize(("offset", "value"), [(0, -4), (8, -1), (8, 0), (12, 77), (92, -5)])
def test_damaged_sizes_are_refused(tmp_path: Path, offset: int, value: int) -> None:
    raw = bytearray(raw_mrc(example(2), 2))
    struct.pack_into("<i", raw, offset, value)
    (tmp_path / "a.mrcs").write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        read_header(tmp_path / "a.mrcs")


def test_files_that_are_no_stacks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.mrc").write_bytes(b"abc")
    (tmp_path / "text.mrc").write_text("hello " * 500)
    with pytest.raises(CorruptDataError, match="3 bytes, shorter than an MRC header"):
        read_header(tmp_path / "short.mrc")
    with pytest.raises(InputError, match="not an MRC file"):
        read_header(tmp_path / "text.mrc")
    with pytest.raises(MissingFileError, match=r"none\.mrc: no such file"):
        read_header(tmp_path / "none.mrc")
    with pytest.raises(InputError, match="folder"):
        read_header(tmp_path)


def test_an_extended_header_longer_than_the_file_holds_no_image(tmp_path: Path) -> None:
    raw = bytearray(raw_mrc(example(2), 2))
    struct.pack_into("<i", raw, 92, 1 << 30)
    (tmp_path / "a.mrcs").write_bytes(raw)
    assert read_header(tmp_path / "a.mrcs").whole_images == 0
    with pytest.raises(CorruptDataError, match="0 of 5"):
        read_images(tmp_path / "a.mrcs", [0])


def test_out_is_filled_and_checked(tmp_path: Path) -> None:
    data = example(1)
    (tmp_path / "a.mrcs").write_bytes(raw_mrc(data, 1))
    out = np.full((2, 6, 4), np.nan, np.float32)
    assert read_images(tmp_path / "a.mrcs", [1, 3], out) is out
    assert np.array_equal(out, data[[1, 3]].astype(np.float32))
    with pytest.raises(ValueError, match="contiguous float32"):
        read_images(tmp_path / "a.mrcs", [1], out)
