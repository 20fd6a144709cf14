"""frazil import: the report, the joined file that it writes, and packing what it reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.cryosparc import particles_from_cs, write_cs
from frazil.io.images import open_particles
from frazil.io.paths import Places
from frazil.store.manifest import read_manifest
from frazil.store.reader import ParticleStore
from tests.io import cs_jobs
from tests.store.made import make_images, write_stack

Array = np.ndarray[Any, Any]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose extracted particles are there: stacks of eight images of 16 px."""
    folder = tmp_path / "P1" / "J2" / "extract"
    folder.mkdir(parents=True)
    for seed, name in enumerate("abc"):
        write_stack(folder / f"{name}.mrc", make_images(8, cs_jobs.BOX_PX, seed))
    return tmp_path / "P1"


@pytest.mark.parametrize("job", [*cs_jobs.JOBS_3D, *cs_jobs.JOBS_2D])
def test_the_joined_file_holds_all_fields_of_all_files_and_reads_alike(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], job: str
) -> None:
    write, class_index = (cs_jobs.JOBS_3D | {k: (v, None) for k, v in cs_jobs.JOBS_2D.items()})[job]
    truth = write(project / "J24")
    out = tmp_path / "joined" / "all.cs"
    chosen = () if class_index is None else ("--class", class_index)
    code, text, _ = run(capsys, "import", project / "J24", "--datadir", project, *chosen, "-o", out)
    assert code == 0 and f"wrote {out}: {len(truth)} particles" in text
    assert f"rows: {len(truth)} in, 0 dropped, {len(truth)} out" in text
    joined = np.load(out, max_header_size=1 << 20)
    order = np.argsort(truth["uid"])
    truth = truth[order[np.searchsorted(truth["uid"], joined["uid"], sorter=order)]]
    for name in joined.dtype.names:
        known = name.replace("alignments_class_1", "alignments3D") if job == "ab-initio" else name
        np.testing.assert_array_equal(joined[name], truth[known], name)
    class_of_poses = class_index if job == "ab-initio" else None
    first = particles_from_cs(project / "J24", class_index=class_index)
    again = particles_from_cs(out, Places(project), class_index=class_of_poses)
    assert np.array_equal(first.rows.tobytes(), again.rows.tobytes())
    assert first.sources == again.sources


def test_symmetry_expanded_rows_share_stored_images_end_to_end(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = cs_jobs.symmetry_expansion(project / "J24")
    store_path = tmp_path / "expanded.frz"
    line = ("preprocess", project / "J24", "--datadir", project, "-o", store_path)
    code, text, error = run(capsys, *line)
    assert code == 0, error
    assert "symmetry expansion: 12 rows of 4 particles (sym_expand/src_uid)" in text
    manifest = read_manifest(store_path)
    assert (manifest.particles, manifest.images) == (12, 4)
    rows = ParticleStore.open(store_path).rows
    assert rows["uid"].tolist() == truth["uid"].tolist()
    places = {(int(row["shard"]), int(row["slot"])) for row in rows}
    assert len(places) == 4  # each image once
    for row in range(0, 12, 3):  # the three copies of a particle: one image, three poses
        assert len(set(rows["slot"][row : row + 3].tolist())) == 1
        assert len({pose.tobytes() for pose in rows["rotation"][row : row + 3]}) == 3


def test_a_job_folder_packs_with_the_class_that_is_asked_for(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = cs_jobs.heterogeneous(project / "J24")
    line = ("preprocess", project / "J24", "--datadir", project, "-o", tmp_path / "x.frz")
    code, _, error = run(capsys, *line)
    assert code == 2 and error.count("\n") == 1 and "--class N" in error
    code, text, error = run(capsys, *line, "--class", 1)
    assert code == 0, error
    assert "px x 3 A/px (alignments3D/psize_A) = (" in text
    uids = ParticleStore.open(tmp_path / "x.frz").rows["uid"]
    assert uids.tolist() == truth["uid"].tolist()


def test_training_on_2d_classes_is_refused_with_the_reason_and_packing_is_not(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cs_jobs.classification2d(project / "J24")
    line = ("train_vae", project / "J24", "--datadir", project, "--zdim", 2, "-o", tmp_path / "run")
    code, _, error = run(capsys, *line)
    assert code == 2 and error.count("\n") == 1
    assert "2D alignments only (alignments2D)" in error and "give --poses" in error
    packed = ("preprocess", project / "J24", "--datadir", project, "-o", tmp_path / "x.frz")
    assert run(capsys, *packed)[0] == 0


def test_the_star_that_is_written_names_the_stacks_as_found(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star = tmp_path / "run_data.star"
    names = ["000002@J2/extract/a.mrc", "000001@J2/extract/b.mrc"]
    rows = "".join(
        f"{name} 10 20 30 1.5 -2 {note}  2\n" for name, note in zip(names, "xy", strict=True)
    )
    labels = ("ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OriginX", "OriginY", "Extra")
    head = "".join(f"_rln{label} #{n}\n" for n, label in enumerate((*labels, "PixelSize"), 1))
    star.write_text(f"data_\n\nloop_\n{head}{rows}")
    out = tmp_path / "found.star"
    code, text, error = run(capsys, "import", star, "--datadir", project, "-o", out)
    assert code == 0, error
    assert "shift (1.5, -2) px (_rlnOriginX/Y) x 2 A/px = (3, -4) A" in text
    assert "poses: _rlnAngleRot, _rlnAngleTilt, _rlnAnglePsi of data_" in text
    assert "2 particles in 2 stacks" in text and "all stacks were found" in text
    first, again = open_particles(star, Places(project)), open_particles(out)
    assert first.sources == again.sources and first.rows.tobytes() == again.rows.tobytes()
    expected = star.read_text().replace("J2/extract", str(project / "J2/extract"))
    assert out.read_text() == expected  # everything else byte for byte


@pytest.mark.parametrize(
    ("out", "said"),
    [("x.star", "give -o X.cs"), ("P1/J24/imported_particles.cs", "is read as input")],
)
def test_a_file_that_cannot_be_written_so_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    cs_jobs.imported(project / "J24")
    before = (project / "J24" / "imported_particles.cs").read_bytes()
    code, _, error = run(capsys, "import", project / "J24", "-o", tmp_path / out)
    assert code == 2 and said in error and error.count("\n") == 1
    assert (project / "J24" / "imported_particles.cs").read_bytes() == before


def test_a_uid_that_occurs_twice_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = cs_jobs.imported(project / "J24")
    path = project / "J24" / "twice.cs"
    write_cs(path, np.concatenate([truth, truth[:2]]))
    code, text, _ = run(capsys, "import", path, "--datadir", project)
    assert code == 0
    assert "14 in, 0 dropped, 14 out; 12 different images" in text
    assert "2 rows repeat the uid of another row" in text


def test_info_tells_of_a_job_folder(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cs_jobs.refinement(project / "J24")
    code, text, error = run(capsys, "info", project / "J24", "--datadir", project)
    assert code == 0, error
    assert "cryoSPARC job" in text and "3, all present" in text
