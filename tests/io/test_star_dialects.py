"""Dialects: cisTEM's files, keywords in any case, and odd lines; rows copied from each of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from frazil.analysis.info import describe
from frazil.errors import InputError
from frazil.io import star_compiled, star_table
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import StackWriter
from frazil.io.parse_ctf import ctf_from_star
from frazil.io.parse_poses import poses_from_star
from frazil.io.parse_settings import CtfStarSettings, PoseStarSettings
from frazil.io.star import copy_rows, particles_from_star, read_star
from frazil.io.star_input import write_particle_star
from frazil.io.star_labels import version_of
from frazil.io.star_table import is_regular, split_line
from frazil.io.tool_settings import WriteStarSettings
from tests.io.test_star import OLD, OPTICS, PARTICLES, star

CISTEM = """# Written by cisTEM Version 2.0.0-alpha on 2026-01-01 10:00:00

data_

loop_
_cisTEMPositionInStack #1
_cisTEMAnglePsi #2
_cisTEMAngleTheta #3
_cisTEMAnglePhi #4
_cisTEMXShift #5
_cisTEMYShift #6
_cisTEMDefocus1 #7
_cisTEMDefocus2 #8
_cisTEMDefocusAngle #9
_cisTEMPhaseShift #10
_cisTEMImageActivity #11
_cisTEMPixelSize #12
_cisTEMMicroscopeVoltagekV #13
_cisTEMMicroscopeCsMM #14
_cisTEMAmplitudeContrast #15
_cisTEMStackFilename #16
_cisTEMAssignedSubset #17
#    POS     PSI   THETA     PHI       SHX       SHY      DF1      DF2  ANGAST  PSHIFT STAT
       3   30.00   20.00   10.00      1.50     -2.25  10000.5   9000.0   12.50    1.57    1 \
 1.50000  300.00    2.70  0.0700    'my/a.mrcs' 1
       1   60.00   50.00   40.00      0.00      0.25  11000.5   9100.0   13.50    0.00   -1 \
 1.50000  300.00    2.70  0.0700    'my/b.mrcs' 2
       1   90.00   80.00  -70.00      3.50      4.25  12000.5   9200.0   14.50    0.00    1 \
 1.50000  300.00    2.70  0.0700    'my/a.mrcs' 0
"""
DIALECTS = {
    "RELION 3.0 or older": OLD + "4@b.mrcs 1 2 3 300 2.7 0.1 10000 14 1 2 3 2 -3\n",
    "RELION 3.1 or later": OPTICS + PARTICLES,
    "cisTEM": CISTEM,
}


def stacks(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with StackWriter(folder / name, (8, 8), 3, 1.5) as writer:
            writer.write(np.full((3, 8, 8), 10 * number) + np.arange(3)[:, None, None])


def test_cistem_reads_as_relion_would_say_it(tmp_path: Path) -> None:
    stacks(tmp_path, "my/a.mrcs", "my/b.mrcs")
    table = open_particles(star(tmp_path, CISTEM))
    rows = table.rows
    angles = [[10, 20, 30], [40, 50, 60], [-70, 80, 90]]
    wanted = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(rows["rotation"], wanted, atol=1e-6)
    # cisTEM's shift is RELION's origin times -1.
    assert rows["shift_ang"].tolist() == [[-1.5, 2.25], [0, -0.25], [-3.5, -4.25]]
    assert rows["index"].tolist() == [2, 0, 0] and rows["half_set"].tolist() == [1, 2, -1]
    assert open_images(table).read([0, 1, 2])[:, 0, 0].tolist() == [2, 10, 0]
    assert rows["defocus_u_ang"].tolist() == [10000.5, 11000.5, 12000.5]
    assert (rows["pixel_size_ang"] == 1.5).all() and (rows["voltage_kv"] == 300).all()
    assert table.has_ctf and table.has_pose and table.has_shift
    np.testing.assert_allclose(rows["phase_shift_deg"], [np.rad2deg(1.57), 0, 0], rtol=1e-6)
    notes = "\n".join(table.notes)
    assert "up to 1.57 is taken as radians" in notes and "1 particles are switched off" in notes
    facts = describe(tmp_path / "p.star")
    assert facts.kind == "particles (cisTEM)"


def test_cistem_phase_shifts_beyond_two_pi_are_degrees(tmp_path: Path) -> None:
    table = particles_from_star(star(tmp_path, CISTEM.replace("  1.57 ", " 90.00 ")))
    assert table.rows["phase_shift_deg"].tolist() == [90, 0, 0]
    assert any("taken as degrees" in note for note in table.notes)


def test_cistem_without_a_stack_name_takes_the_stack_beside_it(tmp_path: Path) -> None:
    text = CISTEM.replace("_cisTEMStackFilename", "_cisTEMReference3DFilename")
    table = particles_from_star(star(tmp_path, text, "set.star"))
    assert table.sources == (str(tmp_path / "set.mrc"),)
    stacks(tmp_path, "set.mrcs")
    for content in (text, CISTEM.replace("my/a.mrcs", "").replace("my/b.mrcs", "")):
        table = open_particles(star(tmp_path, content, "set.star"))
        assert table.sources == (str(tmp_path / "set.mrcs"),)
        assert any("names no stack" in note for note in table.notes)
        assert open_images(table).read([0, 1])[:, 0, 0].tolist() == [2, 0]


@pytest.mark.parametrize("position", ["0", "1.5"])
def test_cistem_positions_count_from_1(tmp_path: Path, position: str) -> None:
    text = CISTEM.replace("       3 ", f"       {position} ")
    with pytest.raises(InputError, match=rf"row 0 .*_cisTEMPositionInStack = {position}"):
        particles_from_star(star(tmp_path, text))


def test_cistem_parses_to_the_pickles_of_the_same_relion_file(tmp_path: Path) -> None:
    relion = OLD.split("3@a.mrcs")[0]
    relion += "3@my/a.mrcs 10000.5 9000 12.5 300 2.7 0.07 10000 1.5 10 20 30 -1 1.5\n"
    relion += "1@my/b.mrcs 11000.5 9100 13.5 300 2.7 0.07 10000 1.5 40 50 60 0 -0.1666666666\n"
    relion += "1@my/a.mrcs 12000.5 9200 14.5 300 2.7 0.07 10000 1.5 -70 80 90 -2.333333 -2.833333\n"
    found = {}
    for name, text in (("c.star", CISTEM.replace("1.57 ", "0.00 ")), ("r.star", relion)):
        path = str(star(tmp_path, text, name))
        poses = poses_from_star(PoseStarSettings(input=path, out="x.pkl", box_px=64))
        ctf = ctf_from_star(CtfStarSettings(input=path, out="x.pkl", box_px=64))
        found[name] = (poses.rotation, poses.shift, ctf.parameters)
    for ours, theirs in zip(found["c.star"], found["r.star"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    no_pixel = star(tmp_path, CISTEM.replace("_cisTEMPixelSize", "_cisTEMSigma"), "n.star")
    with pytest.raises(InputError, match="no column _cisTEMPixelSize; give --Apix"):
        ctf_from_star(CtfStarSettings(input=str(no_pixel), out="x.pkl", box_px=64))


@pytest.mark.parametrize("kind", DIALECTS)
def test_the_dialect_goes_by_content(tmp_path: Path, kind: str) -> None:
    path = star(tmp_path, DIALECTS[kind], "any name.STAR")
    assert version_of(read_star(path)) == kind
    assert len(open_particles(path)) >= 2


def test_keywords_and_table_names_count_in_any_case(tmp_path: Path) -> None:
    text = (OPTICS + PARTICLES).replace("data_optics", "DATA_Optics").replace("loop_", "Loop_")
    text = text.replace("data_particles", "data_PARTICLES")
    found = particles_from_star(star(tmp_path, "\ufeff" + text + PARTICLES.replace("_p", "_q")))
    wanted = particles_from_star(star(tmp_path, OPTICS + PARTICLES, "w.star"))
    assert found.rows.tobytes() == wanted.rows.tobytes()
    assert found.optics_groups == wanted.optics_groups


def test_lines_of_nul_are_blank(tmp_path: Path) -> None:
    text = OLD.replace("\n\n", "\n\0\n") + "\0\n5@a.mrcs 1 2 3 300 2.7 0.1 10000 14 1 2 3 2 -3\n"
    assert particles_from_star(star(tmp_path, text)).rows["index"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data_x\n_rlnA\n;two\nlines\n;\n", 2),
        ("data_x\n_rlnA 1\n;two\nlines\n;\n", 3),
        ("data_\nloop_\n_rlnImageName\n_rlnB\n1@a.mrcs 3\n; 4\nb\n;\n", 6),
        ("data_\nloop_\n_rlnImageName\n;text\n;\n", 4),
        ("data_\nloop_ _rlnImageName\n1@a.mrcs\n", 2),
        ("data_\nloop_\n_rlnImageName _rlnB\n1@a.mrcs 3\n", 3),
    ],
)
def test_values_over_several_lines_are_refused_with_the_line(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(InputError, match=rf"p\.star:{line}: "):
        read_star(star(tmp_path, text))


def test_digits_with_underscores_are_no_number(tmp_path: Path) -> None:
    path = star(tmp_path, OLD.replace("50000 7", "50_000 7"))
    with pytest.raises(InputError, match=r"_rlnMagnification = 50_000, a finite number"):
        particles_from_star(path)


WORD = st.text(st.sampled_from("'\"#ab \t;_"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(words=st.lists(WORD, max_size=5))
def test_what_is_called_regular_splits_at_white_space(words: list[str]) -> None:
    line = " ".join(words).encode() + b"\n"
    if is_regular(line):
        assert line.split() == split_line(line)


def test_names_quoted_for_no_need_are_regular() -> None:
    assert is_regular(b"  1 2.5 'a/b.mrcs'  'c'\r\n") and is_regular(b"1@a#b.mrcs 2\n")
    assert not is_regular(b"1 'a b' 2\n") and not is_regular(b"1 2 # three\n")


def texts(path: Path, rows: list[int]) -> list[list[str]]:
    everything = list(read_star(path).particles.rows())
    return [everything[row] for row in rows]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(DIALECTS)), end=st.sampled_from(["\n", "\r\n"]))
def test_copied_rows_of_every_dialect_are_the_subset_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str, end: str
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    path, out = folder / "p.star", folder / "o.star"
    path.write_bytes(DIALECTS[kind].replace("\n", end).encode())
    table = particles_from_star(path)
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=6))
    copy_rows(path, out, rows)
    assert texts(out, list(range(len(rows)))) == texts(path, rows)
    again, wanted = particles_from_star(out), table.take(rows)
    for name in set(wanted.rows.dtype.names or ()) - {"source", "group"}:
        assert np.array_equal(again.rows[name], wanted.rows[name], equal_nan=True), name
    for name, names in (("source", "sources"), ("group", "groups")):
        mine, theirs = getattr(again, names), getattr(wanted, names)
        found = [mine[n] if n >= 0 else None for n in again.rows[name].tolist()]
        assert found == [theirs[n] if n >= 0 else None for n in wanted.rows[name].tolist()]
    for name, block in read_star(path).blocks.items():
        if name != read_star(path).particles.name:
            start, stop = block.start, block.stop
            assert path.read_bytes()[start:stop] in out.read_bytes()


def test_a_single_particle_as_pairs_is_copied_once_or_not_at_all(tmp_path: Path) -> None:
    path = star(tmp_path, "data_\n_rlnImageName 2@a.mrcs\n_rlnOther x\n")
    assert particles_from_star(path).rows["index"].tolist() == [1]
    copy_rows(path, tmp_path / "o.star", [0])
    assert (tmp_path / "o.star").read_bytes() == path.read_bytes()
    for rows in ([], [0, 0]):
        with pytest.raises(InputError, match="one particle without loop_"):
            copy_rows(path, tmp_path / "o.star", np.array(rows, np.int64))


def both_ways(monkeypatch: pytest.MonkeyPatch, path: Path, names: list[str]) -> list[object]:
    """Return what plain and compiled loops read of a file: values, or the message."""
    found: list[object] = []
    for size in (1 << 60, 0):
        monkeypatch.setattr(star_table, "COMPILED_BYTES", size)
        try:
            table = read_star(path).block("x")
            numbers = table.numbers(names).tobytes() if names else b""
            found.append((replace(table, path=path), list(table.rows()), numbers))
        except InputError as error:
            found.append(str(error))
    return found


NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda x: f"{x:.6f}"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**18), 10**18).map(str),
    st.sampled_from(["+.5", "5.", "-0", "1E+05", "2e-22", "1e400", ".", "e5", "1e", "--1", "0x1"]),
)
PIECE = st.one_of(WORD, st.text(st.characters(codec="latin-1", max_codepoint=255), max_size=6))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(NUMBER, PIECE, NUMBER), max_size=20),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\n# c\n"]),
    last=st.sampled_from(["", "\n", "\ndata_y\nloop_\n_b\n1\n"]),
)
def test_compiled_loops_read_what_plain_ones_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], end: str, last: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "loops.star"
    text = end.join(" ".join(row) for row in rows)
    path.write_bytes(f"data_x\nloop_\n_a\n_t\n_b\n{text}{last}".encode("latin-1"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        plain, compiled = both_ways(monkeypatch, path, ["_a", "_b"])
    assert plain == compiled


def test_compiled_loops_are_used_for_large_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []
    parse = star_compiled.parse_rows
    monkeypatch.setattr(
        star_compiled, "parse_rows", lambda *given: called.append(1) or parse(*given)
    )
    path = star(tmp_path, OPTICS + PARTICLES)
    small = particles_from_star(path)
    assert not called
    monkeypatch.setattr(star_table, "COMPILED_BYTES", 0)
    large = particles_from_star(path)
    assert called and large.rows.tobytes() == small.rows.tobytes()
    assert (large.groups, large.sources) == (small.groups, small.sources)


def test_write_star_makes_a_relion_file_of_cistems(tmp_path: Path) -> None:
    stacks(tmp_path, "my/a.mrcs", "my/b.mrcs")
    path, out = star(tmp_path, CISTEM), tmp_path / "relion.star"
    write_particle_star(WriteStarSettings(particles=str(path), out=str(out)))
    assert version_of(read_star(out)) == "RELION 3.1 or later"
    made, wanted = open_particles(out), open_particles(path)
    for name in ("rotation", "shift_ang", "pixel_size_ang", "phase_shift_deg", "index"):
        np.testing.assert_allclose(made.rows[name], wanted.rows[name], atol=1e-4)
    assert [made.sources[n] for n in made.rows["source"]] == [
        wanted.sources[n] for n in wanted.rows["source"]
    ]
    lines = "\n".join(wanted.provenance)
    assert "poses: _cisTEMAnglePhi, _cisTEMAngleTheta, _cisTEMAnglePsi of data_" in lines
    assert "shift (-1.5, 2.25) A (_cisTEMXShift and _cisTEMYShift times -1)" in lines
