"""frazil export: import, select, export, import gives the rows of the original, byte for byte."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.cli.main import main
from frazil.io.cryosparc import write_cs
from frazil.io.cryosparc_files import read_cs
from frazil.io.cryosparc_group_writer import edited_group, new_group
from frazil.io.cryosparc_groups import find_cs_files, read_csg
from frazil.io.cryosparc_join import CsColumns
from frazil.io.images import open_particles
from frazil.io.particles import ParticleTable
from frazil.io.pickles import write_pickle
from frazil.io.star import read_star
from tests.analysis.tiny_run import PARTICLES, ROWS, make_latents, make_run
from tests.io import cs_jobs
from tests.io.test_star_dialects import CISTEM, stacks

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
           1 "first group"     300.000000     2.700000     0.100000     1.500000          64
           7 second    300.000000     2.700000     0.100000     1.500000          64

"""
HEAD = """
# version 30001

data_{name}

loop_
_rlnDefocusU #1
_rlnDefocusV #2
_rlnImageName #3
_rlnGroupName #4
_rlnAngleRot #5
_rlnAngleTilt #6
_rlnAnglePsi #7
{extra}"""
GENERAL = "\ndata_general\n\n_rlnTomoSubTomosAre2DStacks   0\n_rlnNote   'a text'\n"
# Every example writes the same files anew. The machine may be busy: no deadline.
ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
DIALECTS = ("3.0", "3.1", "optics last", "5")


def star_text(dialect: str, rows: list[tuple[str, str]], end: str, comment: bool) -> str:
    """Return a STAR file of (stack, its 1-based image, as text) rows in a dialect."""
    old = dialect == "3.0"
    extra = "" if old else "_rlnOpticsGroup #8\n"
    head = HEAD.format(name="" if old else "particles", extra=extra)
    lines = [
        f"  {10000 + n}.50 9000 {index}@{stack} {'g1' if n % 2 else repr('g 2')} {n} 20 30"
        + ("" if old else f" {1 if n % 3 else 7}")
        + (" # seen\n" if comment and n % 4 == 1 else " \n")
        for n, (stack, index) in enumerate(rows)
    ]
    body = head + "".join(lines) + "\n"
    tables = [body] if old else [OPTICS, body]
    if dialect == "optics last":
        tables.reverse()
    if dialect == "5":
        tables.insert(0, GENERAL)
    text = "# before\n" + "".join(tables) + "# after\n"
    return text.replace("\n", end)


def same_particles(found: ParticleTable, expected: ParticleTable) -> bool:
    """Return whether two tables mean the same particles, whatever the number of a name is."""
    for name in found.rows.dtype.names or ():
        if name in ("source", "group", "optics_group"):
            continue
        if not np.array_equal(found.rows[name], expected.rows[name], equal_nan=True):
            return False
    named = []
    for table in (found, expected):
        sources = [Path(table.sources[n]).name for n in table.rows["source"]]
        groups = [table.groups[n] for n in table.rows["group"]] if table.groups else []
        optics = (
            [table.optics_groups[n] for n in table.rows["optics_group"]]
            if table.optics_groups
            else []
        )
        named.append((sources, groups, optics))
    return named[0] == named[1]


@ONE_FOLDER
@given(data=st.data())
def test_star_round_trip_is_the_row_subset(tmp_path: Path, data: st.DataObject) -> None:
    """Import, select, export, import, in every dialect of RELION."""
    dialect = data.draw(st.sampled_from(DIALECTS))
    images = st.tuples(st.sampled_from(["a.mrcs", "sub/b.mrcs"]), st.integers(1, 99))
    pairs = data.draw(st.lists(images, min_size=2, max_size=12, unique=True))
    rows = [(stack, f"{index:0{data.draw(st.sampled_from([1, 6]))}d}") for stack, index in pairs]
    end, comment = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.booleans())
    text = star_text(dialect, rows, end, comment)
    original, chosen = tmp_path / "p.star", tmp_path / "a.sel"
    original.write_bytes(text.encode())
    kept = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    write_pickle(tmp_path / "ind.pkl", np.array(kept))
    assert (
        main(["select", str(original), "--and", str(tmp_path / "ind.pkl"), "-o", str(chosen)]) == 0
    )
    out = tmp_path / "o.star"
    assert main(["export", str(chosen), "--into", str(original), "-o", str(out)]) == 0
    lines = text.split(end)
    first = next(n for n, line in enumerate(lines) if "@" in line)
    expected = [
        line for n, line in enumerate(lines) if not 0 <= n - first < len(rows) or n - first in kept
    ]
    assert out.read_bytes().decode() == end.join(expected)
    assert same_particles(open_particles(out), open_particles(original).take(kept))


@ONE_FOLDER
@given(data=st.data())
def test_new_columns_leave_every_other_byte(tmp_path: Path, data: st.DataObject) -> None:
    dialect = data.draw(st.sampled_from(DIALECTS))
    count = data.draw(st.integers(1, 9))
    end, comment = data.draw(st.sampled_from(["\n", "\r\n"])), data.draw(st.booleans())
    text = star_text(dialect, [("a.mrcs", str(n + 1)) for n in range(count)], end, comment)
    original, out = tmp_path / "p.star", tmp_path / "o.star"
    original.write_bytes(text.encode())
    values = np.array(data.draw(st.lists(st.floats(-9, 9), min_size=count, max_size=count)))
    np.save(tmp_path / "s.npy", values)
    arguments = ["--column", f"s={tmp_path / 's.npy'}", "--columns", "s", "-o", str(out)]
    assert main(["export", str(original), "--into", str(original), *arguments]) == 0
    written = out.read_bytes().decode()
    assert read_star(out).particles.column("_frazilS").tolist() == values.tolist()
    lines = written.split(end)
    label = next(n for n, line in enumerate(lines) if line.startswith("_frazilS"))
    del lines[label]
    number = 0
    for place, line in enumerate(lines):
        if "@" in line:
            added = f" {read_star(out).particles.strings('_frazilS')[number]}"
            assert added in line
            lines[place] = line.replace(added + " ", " ", 1)
            number += 1
    assert number == count
    assert end.join(lines) == text


def test_a_reordered_original_gets_the_same_particles(tmp_path: Path) -> None:
    rows = [("a.mrcs", str(n + 1)) for n in range(6)]
    (tmp_path / "p.star").write_text(star_text("3.1", rows, "\n", False))
    (tmp_path / "r.star").write_text(star_text("3.1", rows[::-1], "\n", False))
    chosen, out = tmp_path / "a.sel", tmp_path / "o.star"
    assert (
        main(["select", str(tmp_path / "p.star"), "--where", "index < 2", "-o", str(chosen)]) == 0
    )
    assert main(["export", str(chosen), "--into", str(tmp_path / "r.star"), "-o", str(out)]) == 0
    assert open_particles(out).rows["index"].tolist() == [1, 0]


@pytest.mark.parametrize("job", cs_jobs.JOBS_3D)
@pytest.mark.parametrize("way", ["csg", "cs"])
def test_cs_round_trip_is_the_row_subset(tmp_path: Path, job: str, way: str) -> None:
    """Every job type: all fields of all files, joined on uid, of the chosen rows."""
    write, class_index = cs_jobs.JOBS_3D[job]
    folder = tmp_path / "P1" / "J24"
    write(folder)
    number = "" if class_index is None else f"class_{class_index}"
    path = next(p for p in sorted(folder.glob("*.csg")) if number in p.name)
    if way == "cs":
        path = find_cs_files(folder, class_index).main
    kept = np.array([0, 2, 3])
    write_pickle(tmp_path / "ind.pkl", kept)
    chosen, out = tmp_path / "a.sel", tmp_path / "out" / "o.cs"
    assert main(["select", str(path), "--and", str(tmp_path / "ind.pkl"), "-o", str(chosen)]) == 0
    assert main(["export", str(chosen), "--into", str(path), "-o", str(out)]) == 0
    before = CsColumns(path)
    after = read_cs(out)
    assert set(after.dtype.names or ()) == set(before.names)
    for name in before.names:
        expected: Any = before.need(name)[kept]
        assert (
            after[name].dtype.base == expected.dtype.newbyteorder("<") or name in after.dtype.names
        )
        assert np.array_equal(after[name], expected.astype(after[name].dtype))
    group = read_csg(out.with_suffix(".csg"))
    assert {(r.metafile, r.items) for r in group.results} == {(">o.cs", len(kept))}
    class_given = class_index if job == "ab-initio" else None
    again = open_particles(out.with_suffix(".csg"), class_index=class_given)
    assert same_particles(again, open_particles(path, class_index=class_given).take(kept))


def test_rows_of_a_cs_are_copied_byte_for_byte(tmp_path: Path) -> None:
    array = cs_jobs.particles([*cs_jobs.BLOB, *cs_jobs.CTF, *cs_jobs.alignments("alignments3D")])
    # What follows the end of a text is kept, too.
    raw = array.view(np.uint8).reshape(len(array), -1)
    start = array.dtype.fields["blob/path"][1]  # type: ignore[index]
    raw[:, start + 30] = 7
    write_cs(tmp_path / "p.cs", array)
    write_pickle(tmp_path / "ind.pkl", np.array([0, 3, 4]))
    out = tmp_path / "o.cs"
    arguments = ["--ind", str(tmp_path / "ind.pkl"), "-o", str(out)]
    assert (
        main(["export", str(tmp_path / "p.cs"), "--into", str(tmp_path / "p.cs"), *arguments]) == 0
    )
    head = out.read_bytes()[: -3 * array.itemsize]
    assert head[:6] == b"\x93NUMPY" and b"(3,)" in head
    assert out.read_bytes()[-3 * array.itemsize :] == array[[0, 3, 4]].tobytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/, its store, and simulated/particles.star and .cs."""
    folder = tmp_path_factory.mktemp("export")
    make_run(folder)
    return folder


def test_latents_join_the_right_particles(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run has rows 4 to 53 of its store; those without a latent are left out and counted."""
    original, out = place / "simulated" / "particles.star", tmp_path / "o.star"
    arguments = ["--into", str(original), "--columns", "latents,kmeans,half_set", "-o", str(out)]
    np.save(tmp_path / "k.npy", np.arange(len(ROWS)).astype(np.int32))
    given = ["--column", f"kmeans={tmp_path / 'k.npy'}"]
    assert main(["export", str(place / "run"), *arguments, *given]) == 0
    assert f"{len(ROWS)} of {PARTICLES} rows are kept, 10 left out" in capsys.readouterr().out
    table = read_star(out).particles
    z = np.stack([table.column(f"_frazilZ{k}") for k in range(3)], 1)
    np.testing.assert_array_equal(z.astype(np.float32), make_latents(2))
    assert table.column("_frazilKmeans", int).tolist() == list(range(len(ROWS)))
    assert same_particles(open_particles(out), open_particles(original).take(ROWS))


def test_keep_all_fills_with_nan(place: Path, tmp_path: Path) -> None:
    original, out = place / "simulated" / "particles.star", tmp_path / "o.star"
    arguments = ["--into", str(original), "--columns", "z0,half_set", "--keep-all", "-o", str(out)]
    assert main(["export", str(place / "run"), *arguments]) == 0
    texts = read_star(out).particles.strings("_frazilZ0")
    unknown = sorted(set(range(PARTICLES)) - set(ROWS.tolist()))
    assert [row for row, text in enumerate(texts) if text == "nan"] == unknown
    halves = read_star(out).particles.column("_frazilHalf_set".replace("_s", "S"), int)
    assert (halves[unknown] == -1).all() and set(halves[ROWS]) == {1, 2}


def test_exporting_again_replaces_the_columns(place: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.star", tmp_path / "2.star"
    original = str(place / "simulated" / "particles.star")
    run, columns = str(place / "run"), ["--columns", "z0"]
    assert (
        main(["export", run, "--epoch", "1", "--into", original, *columns, "-o", str(first)]) == 0
    )
    assert (
        main(
            [
                "export",
                run,
                "--into",
                str(first),
                *columns,
                "-o",
                str(second),
                "--datadir",
                str(place / "simulated"),
            ]
        )
        == 0
    )
    table = read_star(second).particles
    assert table.names.count("_frazilZ0") == 1
    z = table.column("_frazilZ0").astype(np.float32)
    np.testing.assert_array_equal(z, make_latents(2)[:, 0])


def test_fields_of_a_cs_are_added_behind_its_own(place: Path, tmp_path: Path) -> None:
    """A store that was packed from the .star has no uid: particles are found by image."""
    original, out = place / "simulated" / "particles.cs", tmp_path / "o.cs"
    arguments = ["--into", str(original), "--columns", "z0,source", "--keep-all", "-o", str(out)]
    assert main(["export", str(place / "run"), *arguments]) == 0
    before, after = read_cs(original), read_cs(out)
    assert after.dtype.names == (*before.dtype.names, "frazil/z0", "frazil/source")  # type: ignore[misc]
    for name in before.dtype.names or ():
        assert before[name].tobytes() == after[name].tobytes()
    np.testing.assert_array_equal(after["frazil/z0"][ROWS], make_latents(2)[:, 0])
    assert np.isnan(after["frazil/z0"]).sum() == PARTICLES - len(ROWS)
    assert after["frazil/source"][ROWS[0]].endswith(b"particles.mrcs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--columns", "score"], "--columns score: {run} has z0, z1, z2"),
        (["-o", "o.cs"], "-o o.cs: the name must end in .star"),
        (["--into", "{star}", "-o", "{star}"], "is the original, which stays as it is"),
        (["--into", "{store}"], "a .cs, .csg or .star is wanted"),
        (["--into", "other.star"], "50 of 50 particles of {run} are not in it"),
        (["--ind", "outside.pkl"], "entry 1 (0-based) is row 99"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.star").write_text(star_text("3.1", [("x.mrcs", "1")], "\n", False))
    write_pickle(tmp_path / "outside.pkl", np.array([5, 99]))
    names = {
        "run": place / "run",
        "star": place / "simulated" / "particles.star",
        "store": place / "particles.frz",
    }
    given = ["--into", "{star}", "-o", "o.star", *arguments]
    before = names["star"].read_bytes()
    assert main(["export", str(names["run"]), *(text.format(**names) for text in given)]) == 2
    error = capsys.readouterr().err
    assert message.format(**names) in error and error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.star", "outside.pkl"]
    assert names["star"].read_bytes() == before


def test_particles_of_another_file_are_left_out_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("a.mrcs", str(n + 1)) for n in range(6)]
    whole, half = tmp_path / "p.star", tmp_path / "h.star"
    whole.write_text(star_text("3.1", rows, "\n", False))
    half.write_text(star_text("3.1", rows[:4], "\n", False))
    arguments = ["export", str(whole), "--into", str(half), "-o", str(tmp_path / "o.star")]
    assert main(arguments) == 2
    assert "2 of 6 particles of" in capsys.readouterr().err
    assert main([*arguments, "--drop-missing"]) == 0
    assert "2 of 6 particles are not in" in capsys.readouterr().out
    assert len(open_particles(tmp_path / "o.star")) == 4


def test_rows_over_one_image_go_back_as_named_or_all(tmp_path: Path) -> None:
    """Symmetry expansion in RELION: one image, several rows that differ in their angles."""
    rows = [("a.mrcs", str(n // 3 + 1)) for n in range(9)]
    original, chosen, out = tmp_path / "p.star", tmp_path / "a.sel", tmp_path / "o.star"
    original.write_text(star_text("3.1", rows, "\n", False))
    assert main(["select", str(original), "--where", "row in [1, 5]", "-o", str(chosen)]) == 0
    arguments = ["export", str(chosen), "--into", str(original), "-o", str(out)]
    assert main(arguments) == 0
    assert read_star(out).particles.column("_rlnAngleRot").tolist() == [1, 5]
    assert main([*arguments, "--all-copies"]) == 0
    assert read_star(out).particles.column("_rlnAngleRot").tolist() == [0, 1, 2, 3, 4, 5]


def test_stacks_named_beside_a_group_are_not_left_behind_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = cs_jobs.particles(cs_jobs.BLOB)
    array["blob/path"] = b">J2/a.mrc"
    (tmp_path / "g").mkdir()
    write_cs(tmp_path / "g" / "p.cs", array)
    source = str(tmp_path / "g" / "p.cs")
    assert main(["export", source, "--into", source, "-o", str(tmp_path / "o.cs")]) == 0
    assert f"relative to {tmp_path / 'g'}" in capsys.readouterr().out
    assert main(["export", source, "--into", source, "-o", str(tmp_path / "g" / "o.cs")]) == 0
    assert "relative" not in capsys.readouterr().out


def test_a_group_is_edited_in_the_lines_that_change() -> None:
    text = (
        "created: 2026-01-01\ngroup:\n  description: All: of them\n  name: particles\n"
        "  type: particle\nresults:\n  blob:\n    metafile: '>a very long name that\n"
        "      goes on.cs'\n    num_items: 12\n    type: particle.blob\n"
        "  ctf:\n    metafile: J1/b.cs\n    num_items: 12\n    passthrough: true\n"
        "    type: particle.ctf\nversion: v4.4.1\n"
    )
    assert edited_group(text, "it's.cs", 3) == (
        "created: 2026-01-01\ngroup:\n  description: All: of them\n  name: particles\n"
        "  type: particle\nresults:\n  blob:\n    metafile: '>it''s.cs'\n"
        "    num_items: 3\n    type: particle.blob\n"
        "  ctf:\n    metafile: '>it''s.cs'\n    num_items: 3\n    passthrough: true\n"
        "    type: particle.ctf\nversion: v4.4.1\n"
    )


def test_a_new_group_names_what_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "o.csg"
    fields = ("uid", "blob/path", "ctf/df1_A", "own/x")
    path.write_text(new_group(fields, "it's.cs", 4, datetime(2026, 1, 2)))
    group = read_csg(path)
    assert [r.name for r in group.results] == ["blob", "ctf"] and group.kind == "particle"
    assert {(r.metafile, r.items) for r in group.results} == {(">it's.cs", 4)}


def test_cistem_round_trip_is_the_row_subset(tmp_path: Path) -> None:
    stacks(tmp_path, "my/a.mrcs", "my/b.mrcs")
    original = tmp_path / "p.star"
    original.write_text(CISTEM)
    chosen, out, again = (tmp_path / name for name in ("a.sel", "o.star", "n.star"))
    condition = "_cisTEMImageActivity > 0 and like(source, '*a.mrcs')"
    assert main(["select", str(original), "--where", condition, "-o", str(chosen)]) == 0
    assert main(["export", str(chosen), "--into", str(original), "-o", str(out)]) == 0
    lines = CISTEM.splitlines(keepends=True)
    assert out.read_text() == "".join(lines[:-2] + lines[-1:])
    assert same_particles(open_particles(out), open_particles(original).take([0, 2]))
    columns = ["--columns", "cisTEMDefocus1,row", "-o", str(again)]
    assert main(["export", str(original), "--into", str(original), *columns]) == 0
    assert read_star(again).particles.column("_frazilRow", int).tolist() == [0, 1, 2]
    assert same_particles(open_particles(again), open_particles(original))
