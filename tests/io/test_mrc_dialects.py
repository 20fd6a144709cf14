"""MRC headers as programs in the field write them: read as mrcfile does, or better, or refused."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, InputError
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import HEADER_BYTES, read_header, read_images
from frazil.io.star import write_star
from tests.io.test_mrc import DTYPES, example, oracle, raw_mrc

STAMPS = {
    "<": [b"DD\0\0", b"DA\0\0", b"D\x11\0\0", b"D   ", b"D\0\0\0", b"\0\0\0\0", b"\x11\x11\0\0"],
    ">": [b"\x11\x11\0\0", b"\0\0\0\0", b"DD\0\0"],
}
MAGICS = [b"MAP ", b"MAP\0", b"\0\0\0\0", b"    "]
ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)
ANY_INT = st.integers(-(2**31), 2**31 - 1)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, np.ndarray[Any, Any], str, int]:
    """Return (file, its images, byte order, mode) with whatever programs put beside the sizes."""
    mode, order = draw(st.sampled_from([*DTYPES])), draw(st.sampled_from("<>"))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)))
    data = example(mode, shape, draw(st.integers(0, 3)))
    extended = bytes(draw(st.integers(0, 300)))
    stamp, magic = draw(st.sampled_from(STAMPS[order])), draw(st.sampled_from(MAGICS))
    raw = bytearray(raw_mrc(data, mode, order, stamp=stamp, extended=extended, magic=magic))
    struct.pack_into(f"{order}3i", raw, 16, *draw(st.tuples(ANY_INT, ANY_INT, ANY_INT)))
    struct.pack_into(
        f"{order}i", raw, 28, draw(st.one_of(st.sampled_from([0, -1, shape[2]]), ANY_INT))
    )
    struct.pack_into(f"{order}3f", raw, 40, *draw(st.tuples(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT)))
    struct.pack_into(f"{order}3i", raw, 64, *draw(st.tuples(ANY_INT, ANY_INT, ANY_INT)))
    struct.pack_into(f"{order}2f", raw, 76, 0, draw(st.sampled_from([-1, 0, 100, 300])))
    struct.pack_into(f"{order}i", raw, 88, draw(st.sampled_from([0, 1, 401, 4, 65537])))
    raw[104:108] = draw(st.sampled_from([b"\0\0\0\0", b"SERI", b"FEI1", b"AGAR", b"MRCO"]))
    struct.pack_into(f"{order}f", raw, 216, draw(ANY_FLOAT))
    struct.pack_into(f"{order}i", raw, 220, draw(ANY_INT))
    return bytes(raw), data, order, mode


@settings(max_examples=300, deadline=None)
@given(headers())
def test_any_header_around_good_sizes_is_read_as_mrcfile_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[bytes, np.ndarray[Any, Any], str, int],
) -> None:
    raw, data, order, mode = made
    path = tmp_path_factory.getbasetemp() / "any.mrcs"
    path.write_bytes(raw)
    header = read_header(path)
    assert (header.nz, header.ny, header.nx) == data.shape and header.mode == mode
    images = read_images(path, np.arange(len(data)))
    assert np.array_equal(images, data.astype(np.float32))
    if mode or raw[212:214] in ((b"DD", b"DA") if order == "<" else (b"\x11\x11",)):
        # mrcfile goes by the stamp where the mode, 0, looks alike in both orders.
        assert np.array_equal(images.ravel(), oracle(path).ravel().astype(np.float32))
    mx, cell = (
        struct.unpack_from(f"{order}i", raw, 28)[0],
        struct.unpack_from(f"{order}f", raw, 40)[0],
    )
    if header.pixel_size_ang:
        assert header.pixel_size_ang == cell / mx and 1e-3 <= header.pixel_size_ang <= 1e6
    else:
        assert mx <= 0 or not 1e-3 <= cell / mx <= 1e6


def changed(raw: bytes, layout: str, offset: int, *values: float) -> bytes:
    """Return a file with some header fields changed."""
    new = bytearray(raw)
    struct.pack_into(layout, new, offset, *values)
    return bytes(new)


PLAIN = raw_mrc(example(2, (4, 4, 4)), 2, cell_ang=1.5)
QUIRKS = {
    "MotionCor2 ends MAP with a zero byte": PLAIN[:208] + b"MAP\0" + PLAIN[212:],
    "SerialEM's short stamp": PLAIN[:212] + b"D\0\0\0" + PLAIN[216:],
    "cryoDRGN's empty stamp": PLAIN[:212] + bytes(4) + PLAIN[216:],
    "a stamp padded with blanks": PLAIN[:212] + b"D   " + PLAIN[216:],
    "EMDB's mixed stamp": PLAIN[:212] + b"D\x11\0\0" + PLAIN[216:],
    "the stamp of the other order": PLAIN[:212] + b"\x11\x11\0\0" + PLAIN[216:],
    "old headers have labels where MAP and stamp are": PLAIN[:208] + b"\xff" * 8 + PLAIN[216:],
    "a stack that calls itself a volume": changed(PLAIN, "<i", 88, 1),
    "a stack of volumes": changed(changed(PLAIN, "<i", 88, 401), "<i", 36, 2),
    "two shorts where the space group is": changed(PLAIN, "<2h", 88, 0, 4),
    "ten labels counted as minus one": changed(PLAIN, "<i", 220, -1),
    "more bytes behind the last image": PLAIN + b"more",
    "axes that are zero": changed(PLAIN, "<3i", 64, 0, 0, 0),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_quirks_of_known_programs_change_no_pixel(tmp_path: Path, quirk: str) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(QUIRKS[quirk])
    expected = example(2, (4, 4, 4))
    assert np.array_equal(read_images(path, range(4)), expected)
    assert np.array_equal(oracle(path).reshape(4, 4, 4), expected)
    assert read_header(path).pixel_size_ang == 1.5


@pytest.mark.parametrize(
    ("mx", "cell_ang"),
    [(0, 6.0), (-4, 6.0), (4, -6.0), (4, np.nan), (4, np.inf), (4, 0.0), (4, 1e-38), (1, 1e30)],
)
def test_a_cell_that_makes_no_sense_gives_no_pixel_size(
    tmp_path: Path, mx: int, cell_ang: float
) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(changed(changed(PLAIN, "<i", 28, mx), "<f", 40, cell_ang))
    assert read_header(path).pixel_size_ang == 0
    assert np.isnan(open_particles(path).rows["pixel_size_ang"]).all()


@pytest.mark.parametrize(
    ("least", "most", "unsigned"),
    [
        (0, 255, True),
        (3, 128, True),
        (0, 127, False),
        (-1, 200, False),
        (0, 0, False),
        (0, 256, False),
        (np.nan, 200, False),
        (0, np.nan, False),
        (0, -1, False),
    ],
)
def test_bytes_are_unsigned_where_the_range_in_the_header_says_so(
    tmp_path: Path, least: float, most: float, unsigned: bool
) -> None:
    data = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    path = tmp_path / "a.mrc"
    path.write_bytes(changed(raw_mrc(data, 0), "<2f", 76, least, most))
    expected = data if unsigned else data.view(np.int8)
    assert np.array_equal(read_images(path, [0]), expected.astype(np.float32))
    path.write_bytes(changed(raw_mrc(data, 0, imod_flags=1), "<2f", 76, least, most))
    assert np.array_equal(read_images(path, [0]), data.view(np.int8).astype(np.float32))


@pytest.mark.parametrize("nx", [4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
def test_four_bits_a_pixel_are_read_with_the_left_one_in_the_low_bits(
    tmp_path: Path, nx: int, order: str
) -> None:
    data = np.random.default_rng(nx).integers(0, 16, (3, 4, nx), dtype=np.uint8)
    packed = np.zeros((3, 4, (nx + 1) // 2), np.uint8)
    packed |= data[..., 0::2]
    packed[..., : nx // 2] |= data[..., 1::2] << 4
    raw = bytearray(raw_mrc(packed, 101, order))
    struct.pack_into(f"{order}i", raw, 0, nx)
    path = tmp_path / "a.mrcs"
    path.write_bytes(raw)
    assert read_header(path).whole_images == 3
    assert np.array_equal(read_images(path, [2, 0, 1]), data[[2, 0, 1]].astype(np.float32))
    path.write_bytes(raw[:-1])
    with pytest.raises(CorruptDataError, match="2 of 3 images are whole"):
        read_images(path, [2])


def test_two_values_in_a_byte_of_mode_0_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(raw_mrc(example(0), 0, imod_flags=16))
    with pytest.raises(InputError, match=r"two 4-bit values in a byte of mode 0 .*newstack"):
        read_header(path)


def test_a_set_may_mix_all_pixel_types_and_orders(tmp_path: Path) -> None:
    names, expected = [], []
    for mode in DTYPES:
        for order in "<>":
            data = example(mode, (2, 4, 4), mode)
            (tmp_path / f"{mode}{order}.mrcs").write_bytes(raw_mrc(data, mode, order))
            names += [f"2@{mode}{order}.mrcs", f"1@{mode}{order}.mrcs"]
            expected += [data[1], data[0]]
    write_star(tmp_path / "p.star", {"": {"_rlnImageName": names}})
    with open_images(open_particles(tmp_path / "p.star")) as images:
        found = images.read(np.arange(len(names)))
    assert np.array_equal(found, np.array(expected, np.float32))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mrcs")
    with pytest.raises(InputError, match="folder or a device"):
        read_header(tmp_path / "a.mrcs")


def test_a_count_far_beyond_the_file_is_refused_before_a_table_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(changed(PLAIN, "<i", 8, 2**31 - 1))
    with pytest.raises(CorruptDataError, match="says 2147483647 images, the file holds 4"):
        open_particles(path)
    path.write_bytes(changed(PLAIN, "<i", 8, 40))  # cut short: its whole images can be used
    assert len(open_particles(path)) == 40
    assert path.stat().st_size == HEADER_BYTES + 256
