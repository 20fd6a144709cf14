"""STAR: every dialect of RELION, against gemmi; and rows copied without touching the rest."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frazil.errors import InputError, MissingFileError
from frazil.io.star import (
    copy_rows,
    particles_from_star,
    read_star,
    split_image_name,
    write_star,
)

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
           1 first     300.000000     2.700000     0.100000     1.500000          64
           7 second    200.000000     2.000000     0.070000     2.500000          64

"""
PARTICLES = """
# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnAngleRot #6
_rlnAngleTilt #7
_rlnAnglePsi #8
_rlnOriginXAngst #9
_rlnOriginYAngst #10
_rlnRandomSubset #11
_rlnGroupName #12
000001@a.mrcs 7 10000.5 9000 12.5 10 20 30 1.5 -2.25 1 g2
000002@a.mrcs 1 11000.5 9100 13.5 40 50 60 0.0 0.25 2 g1
000005@sub/b.mrcs 1 12000.5 9200 14.5 -70 80 90 3.5 4.25 1 g2

"""
OLD = """
data_

loop_
_rlnImageName
_rlnDefocusU
_rlnDefocusV
_rlnDefocusAngle
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnMagnification
_rlnDetectorPixelSize
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginX
_rlnOriginY
3@a.mrcs 10000 9000 45 300 2.7 0.1 50000 7 0 0 0 2 -3
"""


def star(tmp_path: Path, text: str, name: str = "p.star") -> Path:
    (tmp_path / name).write_bytes(text.encode())
    return tmp_path / name


@pytest.mark.parametrize("order", ["optics first", "optics last"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n\n"])
def test_relion_31_reads_alike_in_every_layout(
    tmp_path: Path, order: str, end: str, last: str
) -> None:
    text = OPTICS + PARTICLES if order == "optics first" else PARTICLES + OPTICS
    path = tmp_path / "p.star"
    path.write_bytes((text.rstrip() + last).replace("\n", end).encode())
    table = particles_from_star(path)
    rows = table.rows
    assert len(table) == 3 and table.box_px == 64
    assert table.optics_groups == ("first", "second")
    assert rows["optics_group"].tolist() == [1, 0, 0]
    assert rows["pixel_size_ang"].tolist() == [2.5, 1.5, 1.5]  # per group, not that of row 0
    assert rows["voltage_kv"].tolist() == [200, 300, 300]
    np.testing.assert_allclose(rows["cs_mm"], [2.0, 2.7, 2.7], rtol=1e-6)
    np.testing.assert_allclose(rows["amplitude_contrast"], [0.07, 0.1, 0.1], rtol=1e-6)
    assert rows["defocus_u_ang"].tolist() == [10000.5, 11000.5, 12000.5]
    assert rows["shift_ang"].tolist() == [[1.5, -2.25], [0, 0.25], [3.5, 4.25]]
    assert rows["half_set"].tolist() == [1, 2, 1]
    assert table.groups == ("g2", "g1") and rows["group"].tolist() == [0, 1, 0]
    assert rows["index"].tolist() == [0, 1, 4] and rows["source"].tolist() == [0, 0, 1]
    assert table.sources == (str(tmp_path / "a.mrcs"), str(tmp_path / "sub/b.mrcs"))
    angles = [[10, 20, 30], [40, 50, 60], [-70, 80, 90]]
    expected = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(rows["rotation"], expected, atol=1e-6)
    assert (rows["phase_shift_deg"] == 0).all()
    assert any("_rlnPhaseShift" in note for note in table.notes)


def test_relion_30_takes_pixel_size_from_magnification(tmp_path: Path) -> None:
    table = particles_from_star(star(tmp_path, OLD))
    assert table.rows["pixel_size_ang"].tolist() == [1.4]
    np.testing.assert_allclose(table.rows["shift_ang"], [[2.8, -4.2]], rtol=1e-6)
    assert table.rows["index"].tolist() == [2]
    assert table.optics_groups == () and table.rows["optics_group"].tolist() == [-1]
    given_ang = particles_from_star(tmp_path / "p.star", pixel_size_ang=2.0)
    np.testing.assert_allclose(given_ang.rows["shift_ang"], [[4, -6]], rtol=1e-6)


def test_a_value_of_the_particle_goes_before_that_of_its_optics_group(tmp_path: Path) -> None:
    text = PARTICLES.replace("_rlnGroupName", "_rlnVoltage").replace(" g2", " 120")
    table = particles_from_star(star(tmp_path, OPTICS + text.replace(" g1", " 100")))
    assert table.rows["voltage_kv"].tolist() == [120, 100, 120]


def test_one_optics_group_needs_no_column(tmp_path: Path) -> None:
    one = OPTICS.replace(OPTICS.splitlines()[-2] + "\n", "")
    text = PARTICLES.replace("_rlnOpticsGroup", "_rlnClassNumber")
    table = particles_from_star(star(tmp_path, one + text))
    assert table.rows["pixel_size_ang"].tolist() == [1.5] * 3
    with pytest.raises(InputError, match=r"2 optics groups, but .* no column _rlnOpticsGroup"):
        particles_from_star(star(tmp_path, OPTICS + text))


def test_an_optics_group_that_is_not_there_is_named_by_line(tmp_path: Path) -> None:
    path = star(tmp_path, OPTICS + PARTICLES.replace("a.mrcs 1 ", "a.mrcs 3 "))
    line = (
        path.read_text()
        .splitlines()
        .index("000002@a.mrcs 3 11000.5 9100 13.5 40 50 60 0.0 0.25 2 g1")
    )
    with pytest.raises(InputError, match=rf"p\.star:{line + 1}: row 1 \(0-based\).*group 3"):
        particles_from_star(path)


@pytest.mark.parametrize("missing", ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"])
def test_poses_need_all_three_angles(tmp_path: Path, missing: str) -> None:
    table = particles_from_star(star(tmp_path, OPTICS + PARTICLES.replace(missing, "_rlnOther")))
    assert not table.has_pose
    assert any("no poses" in note and missing in note for note in table.notes)


def test_shifts_that_are_not_there_are_unknown_not_garbage(tmp_path: Path) -> None:
    table = particles_from_star(star(tmp_path, OPTICS + PARTICLES.replace("_rlnOrigin", "_rlnO")))
    assert not table.has_shift and np.isnan(table.rows["shift_ang"]).all()
    assert any("no shifts" in note for note in table.notes)


def test_shifts_in_pixels_need_a_pixel_size(tmp_path: Path) -> None:
    text = OLD.replace("_rlnMagnification", "_rlnOther")
    with pytest.raises(InputError, match="no pixel size to scale them by; give --Apix"):
        particles_from_star(star(tmp_path, text))
    assert particles_from_star(tmp_path / "p.star", pixel_size_ang=1.0).has_shift


def test_missing_ctf_columns_stay_unknown_and_are_told(tmp_path: Path) -> None:
    text = OLD.replace("_rlnAmplitudeContrast", "_rlnOther")
    table = particles_from_star(star(tmp_path, text))
    assert not table.has_ctf and table.missing_ctf_columns == ("amplitude_contrast",)
    assert any("_rlnAmplitudeContrast" in note for note in table.notes)


def test_a_missing_required_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = star(tmp_path, OLD.replace("_rlnImageName", "_rlnPicture"))
    with pytest.raises(InputError, match=r"_rlnImageName.*data_: _rlnPicture, _rlnDefocusU"):
        particles_from_star(path)
    table = read_star(path).blocks[""]
    with pytest.raises(InputError, match=r"no column _rlnFoo; it has _rlnPicture"):
        table.column("rlnFoo")


@pytest.mark.parametrize("value", ["nan", "inf", "abc", "1,5"])
def test_a_value_that_is_no_number_is_named_by_file_and_line(tmp_path: Path, value: str) -> None:
    path = star(tmp_path, OPTICS + PARTICLES.replace("9100", value))
    number = next(i for i, s in enumerate(path.read_text().splitlines(), 1) if value in s)
    message = rf"p\.star:{number}: row 1 \(0-based\) of data_particles has _rlnDefocusV = {value}"
    with pytest.raises(InputError, match=message):
        particles_from_star(path)


@pytest.mark.parametrize("change", [(" 2 g1", " 2"), (" 2 g1", " 2 g1 more")])
def test_rows_of_the_wrong_length_are_named_by_file_and_line(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    path = star(tmp_path, OPTICS + PARTICLES.replace(*change))
    number = next(i for i, s in enumerate(path.read_text().splitlines(), 1) if "000002" in s)
    with pytest.raises(InputError, match=rf"p\.star:{number}: row 1 .* values, 12 columns"):
        read_star(path)


@pytest.mark.parametrize("name", ["x@a.mrcs", "0@a.mrcs", "-1@a.mrcs", "3@"])
def test_image_names_without_an_index_from_1_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"row 0 \(0-based\) of data_ has _rlnImageName"):
        particles_from_star(star(tmp_path, OLD.replace("3@a.mrcs", name)))


def test_image_names_are_one_based_and_bare_names_are_the_first_image() -> None:
    assert split_image_name("000012@a/b@c.mrcs") == (11, "a/b@c.mrcs")
    assert split_image_name("a/b.mrc") == (0, "a/b.mrc")


def test_quotes_comments_hashes_and_pairs_read_as_gemmi_reads_them(tmp_path: Path) -> None:
    text = (
        "# head\ndata_general\n\n_rlnName 'two words'   # why\n_rlnNumber   4\n\n"
        "data_images # comment\nloop_\n_rlnImageName #1\n_rlnA #2\n_rlnB #3\n"
        "'1@my folder/a.mrcs' 1.5 \"x # y\"\n\n# between\n2@b#1/c's.mrcs\t2.5 z # tail\n"
        "3@c.mrcs 3.5 ''\n4@d.mrcs 4.5 'it's'"
    )
    path = star(tmp_path, text)
    found, oracle = read_star(path), gemmi.cif.read(str(path))
    assert list(found.blocks) == [block.name for block in oracle] == ["general", "images"]
    for block in oracle:
        table = found.blocks[block.name]
        for label in table.names:
            if table.is_loop:
                expected = [gemmi.cif.as_string(value) for value in block.find_values(label)]
            else:
                expected = [gemmi.cif.as_string(block.find_value(label))]
            assert table.strings(label) == expected, label
    images = found.blocks["images"]
    assert images.column("rlnA").tolist() == [1.5, 2.5, 3.5, 4.5]
    assert images.line_of(1) == 15
    assert found.blocks["general"].column("_rlnNumber", int).tolist() == [4]
    with pytest.raises(InputError, match=r"p\.star:12: .*_rlnA = 1\.5, an integer is wanted"):
        images.column("rlnA", int)


def test_labels_without_underscore_or_number_are_labels(tmp_path: Path) -> None:
    text = "data_\nloop_\nrlnImageName\n _rlnDefocusU  # 2\n1@a.mrcs 5\n"
    table = read_star(star(tmp_path, text.replace(" _rln", "_rln"))).particles
    assert table.names == ("_rlnImageName", "_rlnDefocusU")
    assert "rlnDefocusU" in table and "_rlnDefocusU" in table and "rlnOther" not in table


def test_a_row_may_begin_like_a_keyword(tmp_path: Path) -> None:
    text = "data_\nloop_\n_rlnMicrographName\n_rlnImageName\ndata_set1/m.mrc 1@a.mrcs\n"
    table = read_star(star(tmp_path, text + "loop_2/m.mrc 2@a.mrcs\ndata_x\n")).particles
    assert table.strings("_rlnMicrographName") == ["data_set1/m.mrc", "loop_2/m.mrc"]


def test_names_beyond_ascii_do_not_shift_the_columns(tmp_path: Path) -> None:
    text = "data_\nloop_\n_rlnImageName\n_rlnA\n1@\u00e0\u0085\u00a0.mrcs 5\n1@\u65e5.mrcs 6\n"
    table = read_star(star(tmp_path, text)).particles
    assert table.column("rlnA").tolist() == [5, 6]
    assert table.strings("rlnImageName")[1] == "1@\u65e5.mrcs"


def test_what_is_no_star_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.star:1: a STAR file is wanted"):
        read_star(star(tmp_path, "hello\n"))
    with pytest.raises(InputError, match="no table"):
        read_star(star(tmp_path, "\n# nothing\n"))
    with pytest.raises(MissingFileError, match=r"none\.star"):
        read_star(tmp_path / "none.star")
    with pytest.raises(InputError, match="second table in data_a"):
        read_star(star(tmp_path, "data_a\nloop_\n_b\n1\n\ndata_a\nloop_\n_b\n2\n"))
    with pytest.raises(InputError, match="column _b twice"):
        read_star(star(tmp_path, "data_a\nloop_\n_b\n_b\n1 2\n"))
    with pytest.raises(InputError, match="no table data_c; it has data_a"):
        read_star(star(tmp_path, "data_a\nloop_\n_b\n1\n")).block("c")


def test_tilt_series_stacks_of_relion_5_are_refused_not_misread(tmp_path: Path) -> None:
    text = "data_particles\nloop_\n_rlnImageName\n_rlnTomoVisibleFrames\na.mrcs [1,0,1]\n"
    with pytest.raises(InputError, match="_rlnTomoVisibleFrames"):
        particles_from_star(star(tmp_path, text))


def test_empty_tables_have_no_rows(tmp_path: Path) -> None:
    table = read_star(star(tmp_path, "data_\nloop_\n_rlnImageName\n_rlnA\n\n")).particles
    assert len(table) == 0 and table.strings("rlnImageName") == []
    assert table.column("rlnA").shape == (0,)


TEXT = st.text(
    st.characters(blacklist_characters="'\n\r", blacklist_categories=("Cs", "Cc", "Zl", "Zp")),
    max_size=12,
).filter(lambda text: "\x85" not in text)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            TEXT,
            st.floats(allow_nan=False, allow_infinity=False),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            st.integers(-(2**31), 2**31),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_back_by_us_and_by_gemmi(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, float, int]]
) -> None:
    path = tmp_path_factory.mktemp("s") / "w.star"
    names, doubles, singles, whole = (list(column) for column in zip(*rows, strict=True))
    columns = {
        "_rlnImageName": names,
        "rlnB": np.array(doubles),
        "_rlnC": np.array(singles, np.float32),
        "_rlnD": whole,
    }
    write_star(path, {"optics": {"_rlnX": [1]}, "particles": columns})
    table = read_star(path).particles
    assert table.strings("_rlnImageName") == names
    assert table.column("_rlnB").tolist() == doubles
    assert table.column("_rlnC").astype(np.float32).tolist() == singles
    assert table.column("_rlnD", int).tolist() == whole
    if all(name.isascii() for name in names):
        block = gemmi.cif.read(str(path)).find_block("particles")
        assert [gemmi.cif.as_string(v) for v in block.find_values("_rlnImageName")] == names
    write_star(path.with_name("again.star"), read_star(path))
    assert path.with_name("again.star").read_bytes() == path.read_bytes()


def test_the_writer_refuses_what_could_not_be_read(tmp_path: Path) -> None:
    for columns, message in (
        ({"a": [1, 2], "b": [1]}, "differ in length: a 2, b 1"),
        ({"a": np.array([1.0, np.nan])}, r"row 1 \(0-based\) of a is not a finite number"),
        ({"a": ["two\nlines"]}, "cannot be written"),
        ({"a": ["' \""]}, "cannot be written"),
    ):
        with pytest.raises(InputError, match=message):
            write_star(tmp_path / "w.star", {"x": columns})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_copying_all_rows_changes_no_byte(tmp_path: Path, end: str) -> None:
    path = star(tmp_path, (OPTICS + PARTICLES).replace("\n", end))
    copy_rows(path, tmp_path / "o.star", np.arange(3))
    assert (tmp_path / "o.star").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("order", ["optics first", "optics last"])
@pytest.mark.parametrize("quoted", [False, True])
def test_copied_rows_keep_their_text_but_for_what_is_replaced(
    tmp_path: Path, order: str, quoted: bool
) -> None:
    particles = PARTICLES.replace(" g2", ' "g 2"') if quoted else PARTICLES
    text = OPTICS + particles if order == "optics first" else particles + OPTICS
    path, out = star(tmp_path, text.rstrip()), tmp_path / "o.star"
    copy_rows(
        path,
        out,
        [2, 0],
        {"_rlnImageName": ["1@new.mrcs", "2@new.mrcs"], "rlnAngleTilt": [81.5, 21.5]},
        {"optics": {"_rlnImagePixelSize": [3.0, 5.0], "_rlnImageSize": [32, 32]}},
    )
    lines = text.splitlines()
    third, first = (next(s for s in lines if s.startswith(n)) for n in ("000005", "000001"))
    second = next(s for s in lines if s.startswith("000002"))
    expected = text.rstrip().replace(second + "\n", "")
    expected = expected.replace(first, "FIRST").replace(third, "THIRD")
    first = first.replace("000001@a.mrcs", "2@new.mrcs").replace(" 20 ", " 21.5 ")
    third = third.replace("000005@sub/b.mrcs", "1@new.mrcs").replace(" 80 ", " 81.5 ")
    expected = expected.replace("FIRST", third).replace("THIRD", first)
    expected = expected.replace("1.500000          64", "3.0          32")
    expected = expected.replace("2.500000          64", "5.0          32")
    assert out.read_text().rstrip() == expected
    table = particles_from_star(out)
    assert table.rows["pixel_size_ang"].tolist() == [3.0, 5.0]
    assert table.rows["index"].tolist() == [0, 1]


def test_copying_checks_rows_labels_and_numbers_of_values(tmp_path: Path) -> None:
    path, out = star(tmp_path, OPTICS + PARTICLES), tmp_path / "o.star"
    for arguments, message in (
        (([3],), "rows 3 to 3 wanted, it has 3"),
        (([0], {"_rlnFoo": [1]}), "no column _rlnFoo"),
        (([0], {"_rlnImageName": ["a", "b"]}), "2 values of _rlnImageName given for 1 rows"),
        (([0], None, {"other": {"_rlnX": [1]}}), "no table data_other"),
        (([0], None, {"particles": {"_rlnImageName": ["a"]}}), "holds the particles"),
    ):
        with pytest.raises(InputError, match=message):
            copy_rows(path, out, *arguments)
    assert not out.exists()


def test_a_table_of_pairs_is_edited_in_place(tmp_path: Path) -> None:
    pairs = "data_optics\n\n_rlnImagePixelSize   1.5  # A\n_rlnVoltage 300\n\n"
    path = star(tmp_path, pairs + "data_particles\nloop_\n_rlnImageName\n1@a.mrcs\n2@a.mrcs\n")
    assert particles_from_star(path).rows["pixel_size_ang"].tolist() == [1.5, 1.5]
    copy_rows(path, tmp_path / "o.star", [1], None, {"optics": {"_rlnImagePixelSize": [3.5]}})
    text = (tmp_path / "o.star").read_text()
    assert text == path.read_text().replace("1.5", "3.5").replace("1@a.mrcs\n", "")
