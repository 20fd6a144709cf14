"""write_star: what it writes reads back as the same particles, in RELION 3.1 and 3.0."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.cli.main import main
from frazil.geometry.rotations import from_relion_euler
from frazil.io.mrc import StackWriter
from frazil.io.particles import CTF_COLUMNS
from frazil.io.pickles import write_pickle
from frazil.io.star import particles_from_star, read_star, write_star

COUNT, BOX_PX, APIX = 9, 16, 1.06
CHOSEN = [7, 0, 3]


def angles() -> torch.Tensor:
    generator = np.random.Generator(np.random.PCG64(2))
    return torch.from_numpy(generator.uniform((-180, 0, -180), (180, 180, 180), (COUNT, 3)))


def shifts() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).uniform(-0.1, 0.1, (COUNT, 2))


def ctf_rows(box_px: int = BOX_PX, apix: float = APIX) -> np.ndarray:
    rows = np.tile(np.array([box_px, apix, 15000, 14000, 25, 300, 2.7, 0.1, 7]), (COUNT, 1))
    rows[:, 2] += 100 * np.arange(COUNT)
    return rows


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count in (("p.mrcs", COUNT), ("a.mrcs", 4), ("b.mrcs", 5)):
        with StackWriter(Path(name), (BOX_PX, BOX_PX), count, APIX) as writer:
            writer.write(np.ones((count, BOX_PX, BOX_PX), np.float32))
    Path("l.txt").write_text("b.mrcs\na.mrcs\n")
    rotation = from_relion_euler(*angles().unbind(1)).numpy()
    write_pickle(Path("pose.pkl"), (rotation.astype(np.float32), shifts().astype(np.float32)))
    write_pickle(Path("ctf.pkl"), ctf_rows().astype(np.float32))
    write_pickle(Path("ind.pkl"), np.array(CHOSEN))


@pytest.mark.parametrize("flag", ["", " --relion30"])
def test_what_is_written_reads_back_as_the_same_particles(flag: str):
    line = f"write_star p.mrcs -o out.star --ctf ctf.pkl --poses pose.pkl --ind ind.pkl{flag}"
    assert main(line.split()) == 0
    table = particles_from_star(Path("out.star"))
    assert table.rows["index"].tolist() == CHOSEN
    assert table.sources == (str(Path("p.mrcs").absolute()),)
    rotation = from_relion_euler(*angles()[CHOSEN].unbind(1)).numpy()
    np.testing.assert_allclose(table.rows["rotation"], rotation, atol=1e-6)
    np.testing.assert_allclose(table.rows["shift_ang"], shifts()[CHOSEN] * BOX_PX * APIX, atol=2e-6)
    np.testing.assert_allclose(table.rows["pixel_size_ang"], APIX, rtol=1e-7)
    for place, name in enumerate(CTF_COLUMNS, start=2):
        np.testing.assert_allclose(table.rows[name], ctf_rows()[CHOSEN, place], rtol=1e-6)
    blocks = read_star(Path("out.star")).blocks
    assert ("optics" in blocks) == (not flag)
    labels = read_star(Path("out.star")).particles.names
    # RELION 3.1 has shifts in A; _rlnOriginX there would be read as none.
    assert ("_rlnOriginXAngst" in labels) == (not flag)
    assert ("_rlnOriginX" in labels) == bool(flag)


def test_the_pixel_size_is_that_of_the_images_not_of_the_ctfs_box(
    capsys: pytest.CaptureFixture[str],
):
    write_pickle(Path("small.pkl"), ctf_rows(BOX_PX // 2, 2 * APIX))
    assert main(["write_star", "p.mrcs", "-o", "out.star", "--ctf", "small.pkl"]) == 0
    assert "warning" not in capsys.readouterr().out
    table = particles_from_star(Path("out.star"))
    np.testing.assert_allclose(table.rows["pixel_size_ang"], APIX, rtol=1e-7)
    assert table.box_px == BOX_PX
    write_pickle(Path("wrong.pkl"), ctf_rows(BOX_PX, 2 * APIX))
    assert main(["write_star", "p.mrcs", "-o", "out.star", "--ctf", "wrong.pkl"]) == 0
    assert "warning: wrong.pkl: 2.12 A/px" in capsys.readouterr().out


def test_a_list_keeps_its_names_and_full_paths_on_request():
    assert main(["write_star", "l.txt", "-o", "out.star", "--ctf", "ctf.pkl"]) == 0
    names = read_star(Path("out.star")).particles.strings("_rlnImageName")
    assert names[:2] + names[5:6] == ["000001@b.mrcs", "000002@b.mrcs", "000001@a.mrcs"]
    assert (
        main(["write_star", "l.txt", "-o", "far/out.star", "--ctf", "ctf.pkl", "--full-path"]) == 0
    )
    names = read_star(Path("far/out.star")).particles.strings("_rlnImageName")
    assert names[5] == f"000001@{Path('a.mrcs').absolute()}"


def test_names_that_lead_nowhere_are_told(capsys: pytest.CaptureFixture[str]):
    Path("data").mkdir()
    for name in ("a.mrcs", "b.mrcs"):
        Path(name).rename(f"data/{name}")
    line = "write_star l.txt -o out.star --ctf ctf.pkl --datadir data"
    assert main(line.split()) == 0
    assert "note: 2 of 2 stacks are not found" in capsys.readouterr().out
    assert main([*line.split(), "--full-path"]) == 0
    assert "note" not in capsys.readouterr().out


def write_both(optics: bool) -> str:
    """Write in.star with columns of every kind, in RELION 3.1 or 3.0; return its text."""
    names = [f"{row % 4 + 1}@{'ab'[row > 3]}.mrcs" for row in range(COUNT)]
    rot, tilt, psi = angles().numpy().T
    columns = {
        "_rlnImageName": names,
        "_rlnMicrographName": [f"M/{row}.mrc" for row in range(COUNT)],
        "_rlnCoordinateX": [f"{row}.250" for row in range(COUNT)],
        "_rlnAngleRot": rot,
        "_rlnAngleTilt": tilt,
        "_rlnAnglePsi": psi,
        "_rlnRandomSubset": [row % 2 + 1 for row in range(COUNT)],
        "_rlnDefocusU": ctf_rows()[:, 2],
        "_rlnDefocusV": ctf_rows()[:, 3],
        "_rlnDefocusAngle": ctf_rows()[:, 4],
    }
    group = [1 + (row > 3) for row in range(COUNT)]
    if optics:
        columns["_rlnOpticsGroup"] = group
        columns["_rlnOriginXAngst"], columns["_rlnOriginYAngst"] = 10 * shifts().T
        two = {
            "_rlnOpticsGroup": [1, 2],
            "_rlnVoltage": [300.0, 200.0],
            "_rlnSphericalAberration": [2.7, 2.0],
            "_rlnAmplitudeContrast": [0.1, 0.1],
            "_rlnImagePixelSize": [1.06, 1.06],
        }
        write_star(Path("in.star"), {"optics": two, "particles": columns})
    else:
        columns["_rlnOriginX"], columns["_rlnOriginY"] = 10 * shifts().T / 1.06
        columns["_rlnVoltage"] = [(300.0, 200.0)[g - 1] for g in group]
        columns["_rlnSphericalAberration"] = [(2.7, 2.0)[g - 1] for g in group]
        columns["_rlnAmplitudeContrast"] = [0.1] * COUNT
        columns["_rlnMagnification"] = [50000.0] * COUNT
        columns["_rlnDetectorPixelSize"] = [5.3] * COUNT
        write_star(Path("in.star"), {"": columns})
    return Path("in.star").read_text()


@pytest.mark.parametrize(("optics", "flag"), [(True, []), (False, []), (False, ["--relion30"])])
def test_a_star_is_copied_byte_for_byte(optics: bool, flag: list[str]):
    lines = write_both(optics).splitlines()
    assert main(["write_star", "in.star", "-o", "out.star", "--ind", "ind.pkl", *flag]) == 0
    rows = [text for text in lines if ".mrcs" in text]
    start = lines.index(rows[0])
    want = lines[:start] + [rows[row] for row in CHOSEN] + lines[start + COUNT :]
    assert Path("out.star").read_text().splitlines() == want


def test_full_paths_change_the_names_alone():
    lines = write_both(True).splitlines()
    assert main(["write_star", "in.star", "-o", "far/out.star", "--full-path"]) == 0
    found = Path("far/out.star").read_text().splitlines()
    changed = [(a, b) for a, b in zip(lines, found, strict=True) if a != b]
    assert len(changed) == COUNT
    here = f"{Path().absolute()}/"
    assert all(b.replace(here, "").lstrip("0") == a for a, b in changed)
    before, after = (particles_from_star(Path(name)) for name in ("in.star", "far/out.star"))
    assert after.sources == before.sources
    np.testing.assert_array_equal(after.rows["index"], before.rows["index"])


def test_relion_30_of_a_star_loses_nothing_of_its_optics_table():
    write_both(True)
    assert main(["write_star", "in.star", "-o", "out.star", "--relion30"]) == 0
    before, after = (particles_from_star(Path(name)) for name in ("in.star", "out.star"))
    star = read_star(Path("out.star"))
    assert "optics" not in star.blocks
    assert after.sources == before.sources
    assert set(after.rows["voltage_kv"].tolist()) == {300.0, 200.0}
    for column in ("index", "half_set"):
        np.testing.assert_array_equal(after.rows[column], before.rows[column])
    for column in ("rotation", "shift_ang", "pixel_size_ang", *CTF_COLUMNS):
        np.testing.assert_allclose(
            after.rows[column], before.rows[column], rtol=1e-6, atol=2e-6, err_msg=column
        )
    for label in ("_rlnMicrographName", "_rlnCoordinateX"):
        texts = read_star(Path("in.star")).particles.strings(label)
        assert star.particles.strings(label) == texts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("p.mrcs -o out.star", "give --ctf"),
        ("p.mrcs -o out.txt --ctf ctf.pkl", "must end in .star"),
        ("in.star -o in.star --ind ind.pkl", "would replace a file that is read"),
        ("in.star -o out.star --poses pose.pkl", "has its own"),
        ("a.mrcs -o out.star --ctf ctf.pkl", "9 rows, but there are 4"),
        ("p.mrcs -o out.star --ctf ctf.pkl --ind far.pkl", "row 9, but there are 9"),
        ("p.mrcs -o out.star --ctf nan.pkl", "row 2 (0-based)"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    line: str, words: str, capsys: pytest.CaptureFixture[str]
):
    write_both(True)
    write_pickle(Path("far.pkl"), np.array([9]))
    bad = ctf_rows()
    bad[2, 3] = np.nan
    write_pickle(Path("nan.pkl"), bad)
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(["write_star", *line.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1
    assert before == {path.name: path.read_bytes() for path in Path().iterdir()}


def test_a_cs_becomes_a_star_with_its_poses_and_ctf(tmp_path: Path):
    arguments = f"simulate -n 24 -D 32 --snr 0.5 -o {tmp_path / 'set'}"
    assert main(arguments.split()) == 0
    assert main(["write_star", "set/particles.cs", "-o", "out.star"]) == 0
    from frazil.io.images import open_particles

    before, after = open_particles(Path("set/particles.cs")), particles_from_star(Path("out.star"))
    assert after.sources == before.sources
    for column in ("index", "half_set", "optics_group"):
        np.testing.assert_array_equal(after.rows[column], before.rows[column], err_msg=column)
    for column in ("rotation", "shift_ang", "pixel_size_ang", *CTF_COLUMNS):
        np.testing.assert_allclose(
            after.rows[column], before.rows[column], rtol=1e-5, atol=1e-5, err_msg=column
        )
