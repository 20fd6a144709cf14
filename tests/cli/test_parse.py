"""The parse commands: cryoDRGN's pickles, right in scale, identity and sign, or an error."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.cryosparc import write_cs
from frazil.io.mrc import StackWriter
from frazil.io.pickles import read_ctf, read_pickle, read_poses
from frazil.io.star import particles_from_star
from tests.reference import rotations

ANGLES = ((10.0, 20.0, 30.0), (-100.0, 75.5, 160.0), (0.0, 180.0, -45.0))
SHIFTS = ((3.0, -1.5), (0.0, 2.25), (-6.0, 0.5))
POSE = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
IN_ANG, IN_PX = ("_rlnOriginXAngst", "_rlnOriginYAngst"), ("_rlnOriginX", "_rlnOriginY")
DEFOCUS = ("_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle")
OPTICS = {
    "_rlnOpticsGroup": (1, 2),
    "_rlnImagePixelSize": (1.5, 3.0),
    "_rlnImageSize": (64, 64),
    "_rlnVoltage": (300.0, 200.0),
    "_rlnSphericalAberration": (2.7, 0.01),
    "_rlnAmplitudeContrast": (0.1, 0.07),
}


def table_text(name: str, columns: dict) -> str:
    labels = "".join(f"{label}\n" for label in columns)
    rows = "".join(" ".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))
    return f"\ndata_{name}\n\nloop_\n{labels}{rows}"


def write_star(path: Path, columns: dict, optics: dict | None = None) -> Path:
    text = table_text("optics", optics) if optics else ""
    path.write_text(text + table_text("particles", columns))
    return path


def particle_columns(shifts=IN_ANG, groups=(1, 2, 1)) -> dict:
    columns = {"_rlnImageName": tuple(f"{i}@s.mrcs" for i in (1, 2, 3))}
    columns |= dict(zip(POSE, zip(*ANGLES, strict=True), strict=True))
    columns |= dict(
        zip(DEFOCUS, ((15000, 16000, 9000), (14000, 15500, 8800), (45, -10, 0)), strict=True)
    )
    columns["_rlnPhaseShift"] = (0, 30, 90)
    if shifts:
        columns |= dict(zip(shifts, zip(*SHIFTS, strict=True), strict=True))
    if groups:
        columns["_rlnOpticsGroup"] = groups
    return columns


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.strip()


@pytest.fixture
def star(tmp_path: Path) -> Path:
    return write_star(tmp_path / "p.star", particle_columns(), OPTICS)


@pytest.fixture
def pkl(tmp_path: Path) -> Path:
    return tmp_path / "new" / "out.pkl"


# --- parse_pose_star ------------------------------------------------------------------------------


def test_star_rotations_are_relions_and_shifts_use_each_rows_pixel_size(star, pkl, capsys):
    code, out, _ = run(capsys, "parse_pose_star", star, "-o", pkl)
    assert code == 0
    rotation, shift = read_poses(pkl, 3)
    for row, angles in enumerate(ANGLES):
        assert np.allclose(rotation[row], rotations.relion(*angles), atol=1e-6)
    box_ang = 64 * np.array([1.5, 3.0, 1.5])[:, None]
    assert np.allclose(shift, np.array(SHIFTS) / box_ang, atol=1e-7)
    assert "3 particles" in out
    assert "row 0: shift (3, -1.5) A / (1.5 A/px x 64 px) = (0.03125, -0.015625) of the box" in out


def test_a_pose_pickle_is_the_tuple_that_cryodrgn_reads(star, pkl, capsys):
    run(capsys, "parse_pose_star", star, "-o", pkl)
    value = read_pickle(pkl)
    assert isinstance(value, tuple)
    assert [array.dtype for array in value] == [np.float32, np.float32]
    assert [array.shape for array in value] == [(3, 3, 3), (3, 2)]


def test_poses_joined_again_give_the_shifts_of_the_file(star, pkl, capsys):
    run(capsys, "parse_pose_star", star, "-o", pkl)
    table = particles_from_star(star)
    joined = table.with_poses(*read_poses(pkl))
    assert np.allclose(joined.rows["shift_ang"], table.rows["shift_ang"], atol=1e-5)
    assert np.allclose(joined.rows["rotation"], table.rows["rotation"], atol=1e-6)


def test_star_shifts_in_pixels_are_divided_by_the_box(tmp_path, pkl, capsys):
    path = write_star(tmp_path / "p.star", particle_columns(IN_PX, groups=None))
    code, _, error = run(capsys, "parse_pose_star", path, "-o", pkl)
    assert code == 2
    assert "give -D" in error
    assert not pkl.exists()
    code, out, _ = run(capsys, "parse_pose_star", path, "-o", pkl, "-D", 32)
    assert code == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS) / 32)
    assert "px / 32 px" in out


def test_the_box_is_read_from_the_stack_when_the_file_does_not_say_it(tmp_path, pkl, capsys):
    with StackWriter(tmp_path / "s.mrcs", (48, 48), 3, 1.0) as writer:
        writer.write(np.ones((3, 48, 48), np.float32))
    path = write_star(tmp_path / "p.star", particle_columns(IN_PX, groups=None))
    code, out, _ = run(capsys, "parse_pose_star", path, "-o", pkl)
    assert code == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS) / 48)
    assert f"box 48 px, from {tmp_path / 's.mrcs'}" in out


def test_flags_win_over_the_star_and_a_warning_names_both(star, pkl, capsys):
    code, out, _ = run(capsys, "parse_pose_star", star, "-o", pkl, "-D", 128, "--Apix", 2)
    assert code == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS) / 256)
    assert "warning: -D 128 is used, but the box in" in out
    assert "is 64 px" in out
    assert "warning: --Apix 2 is used, but the file says 1.5 A/px" in out


def test_flags_that_agree_with_the_star_raise_no_warning(tmp_path, pkl, capsys):
    columns = particle_columns(groups=(1, 1, 1))
    path = write_star(tmp_path / "p.star", columns, OPTICS)
    _, out, _ = run(capsys, "parse_pose_star", path, "-o", pkl, "-D", 64, "--Apix", 1.5)
    assert "warning" not in out


def test_a_star_without_shifts_gets_zeros_and_a_note(tmp_path, pkl, capsys):
    path = write_star(tmp_path / "p.star", particle_columns(shifts=None), OPTICS)
    code, out, _ = run(capsys, "parse_pose_star", path, "-o", pkl)
    assert code == 0
    assert np.array_equal(read_poses(pkl)[1], np.zeros((3, 2)))
    assert "note: the file has no shifts" in out


def test_shifts_of_more_than_half_the_box_are_pointed_at(tmp_path, pkl, capsys):
    columns = particle_columns(IN_PX, groups=None)
    columns["_rlnOriginX"] = (1, 20, 2)
    path = write_star(tmp_path / "p.star", columns)
    _, out, _ = run(capsys, "parse_pose_star", path, "-o", pkl, "-D", 32)
    assert "warning: 1 shifts are more than half the box, the first in row 1 (0-based)" in out


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("_rlnAngleTilt", "no column _rlnAngleTilt, so no poses"),
        ("_rlnOriginYAngst", "has _rlnOriginXAngst, but not _rlnOriginYAngst"),
        ("_rlnImageName", "_rlnImageName"),
    ],
)
def test_a_missing_pose_column_is_named(tmp_path, pkl, capsys, without, said):
    columns = particle_columns()
    del columns[without]
    path = write_star(tmp_path / "p.star", columns, OPTICS)
    code, out, error = run(capsys, "parse_pose_star", path, "-o", pkl)
    assert (code, out) == (2, "")
    assert said in error
    assert str(path) in error
    assert "\n" not in error
    assert not pkl.exists()


def test_shifts_in_angstrom_need_a_pixel_size(tmp_path, pkl, capsys):
    path = write_star(tmp_path / "p.star", particle_columns(groups=None))
    code, _, error = run(capsys, "parse_pose_star", path, "-o", pkl, "-D", 64)
    assert code == 2
    assert "_rlnImagePixelSize" in error
    assert "give --Apix" in error
    assert run(capsys, "parse_pose_star", path, "-o", pkl, "-D", 64, "--Apix", 2)[0] == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS) / 128)


# --- parse_pose_csparc ----------------------------------------------------------------------------

VECTORS = ((0.3, -1.2, 2.0), (0.0, 0.0, 0.0), (-0.5, 0.25, 0.125))
SHIFTS_PX = ((4.0, -2.0), (1.5, 0.0), (0.0, 8.0))


def write_cs_file(path: Path, without=(), prefix="alignments3D", **values) -> Path:
    fields = {
        "uid": np.arange(3, dtype=np.uint64) + 7,
        "blob/path": np.array([b"J1/s.mrc"] * 3),
        "blob/idx": np.arange(3, dtype=np.uint32),
        "blob/shape": np.full((3, 2), 64, np.uint32),
        "blob/psize_A": np.full(3, 1.5, np.float32),
        "ctf/df1_A": np.array([15000, 16000, 9000], np.float32),
        "ctf/df2_A": np.array([14000, 15500, 8800], np.float32),
        "ctf/df_angle_rad": np.array([0.5, -0.25, 0], np.float32),
        "ctf/accel_kv": np.array([300, 200, 300], np.float32),
        "ctf/cs_mm": np.full(3, 2.7, np.float32),
        "ctf/amp_contrast": np.full(3, 0.1, np.float32),
        "ctf/phase_shift_rad": np.array([0, 0.5, 0], np.float32),
        f"{prefix}/pose": np.array(VECTORS, np.float32),
        f"{prefix}/shift": np.array(SHIFTS_PX, np.float32),
        f"{prefix}/psize_A": np.full(3, 1.5, np.float32),
    }
    fields |= {name.replace("__", "/"): value for name, value in values.items()}
    kept = {name: value for name, value in fields.items() if name not in without}
    dtype = [(name, value.dtype, value.shape[1:]) for name, value in kept.items()]
    array = np.zeros(3, dtype)
    for name, value in kept.items():
        array[name] = value
    write_cs(path, array)
    return path


def test_cs_rotations_are_cryosparcs_and_a_zero_vector_is_the_identity(tmp_path, pkl, capsys):
    path = write_cs_file(tmp_path / "p.cs")
    assert run(capsys, "parse_pose_csparc", path, "-o", pkl)[0] == 0
    rotation, shift = read_poses(pkl, 3)
    for row, vector in enumerate(VECTORS):
        assert np.allclose(rotation[row], rotations.cryosparc(np.array(vector)), atol=1e-6)
    assert np.array_equal(rotation[1], np.eye(3))
    assert np.allclose(shift, np.array(SHIFTS_PX) / 64)


def test_cs_shifts_are_scaled_by_the_pixel_size_they_were_found_at(tmp_path, pkl, capsys):
    # Aligned at half sampling: 3 A pixels, images of 64 px at 1.5 A.
    half = np.full(3, 3, np.float32)
    path = write_cs_file(tmp_path / "p.cs", alignments3D__psize_A=half)
    code, out, _ = run(capsys, "parse_pose_csparc", path, "-o", pkl)
    assert code == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS_PX) * 2 / 64)
    line = "row 0: shift (4, -2) px x 3 A/px / (64 px x 1.5 A/px) = (0.125, -0.0625) of the box"
    assert line in out
    assert "warning" not in out


@pytest.mark.parametrize(("box", "warned"), [(32, False), (64, True), (128, True)])
def test_d_wins_over_the_cs_and_a_warning_shows_both_results(tmp_path, pkl, capsys, box, warned):
    half = np.full(3, 3, np.float32)
    path = write_cs_file(tmp_path / "p.cs", alignments3D__psize_A=half)
    _, out, _ = run(capsys, "parse_pose_csparc", path, "-o", pkl, "-D", box)
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS_PX) / box)
    assert ("warning" in out) == warned
    if warned:
        assert f"-D {box} is used" in out
        assert "is 32 (3 rows)" in out
        assert f"gets ({4 / box:g}, {-2 / box:g})" in out
        assert "give (0.125, -0.0625)" in out


def test_cs_pixel_sizes_are_those_of_each_row(tmp_path, pkl, capsys):
    sizes = np.array([1.5, 3, 1.5], np.float32)
    path = write_cs_file(tmp_path / "p.cs", alignments3D__psize_A=sizes)
    _, out, _ = run(capsys, "parse_pose_csparc", path, "-o", pkl)
    wanted = np.array(SHIFTS_PX) * np.array([1, 2, 1])[:, None] / 64
    assert np.allclose(read_poses(pkl)[1], wanted)
    _, out, _ = run(capsys, "parse_pose_csparc", path, "-o", pkl, "-D", 64)
    assert "is 32 (1 rows): row 1 (0-based)" in out


@pytest.mark.parametrize(
    ("without", "flags", "factor"),
    [
        ((), [], 1),  # psize_A says the scale
        (("alignments3D/psize_A",), [], 2),
        ((), ["-D", "64"], 2),
    ],
)
def test_hetrefine_doubles_shifts_whose_scale_the_file_does_not_say(
    tmp_path, pkl, capsys, without, flags, factor
):
    path = write_cs_file(tmp_path / "p.cs", without)
    assert run(capsys, "parse_pose_csparc", path, "-o", pkl, "--hetrefine", *flags)[0] == 0
    assert np.allclose(read_poses(pkl)[1], factor * np.array(SHIFTS_PX) / 64)


def test_abinit_takes_the_poses_of_class_0(tmp_path, pkl, capsys):
    other = {"alignments_class_1__pose": np.ones((3, 3), np.float32)}
    other["alignments_class_1__shift"] = np.ones((3, 2), np.float32)
    path = write_cs_file(tmp_path / "p.cs", prefix="alignments_class_0", **other)
    code, _, error = run(capsys, "parse_pose_csparc", path, "-o", pkl)
    assert code == 2
    assert "--class N" in error
    code, out, _ = run(capsys, "parse_pose_csparc", path, "-o", pkl, "--abinit")
    assert code == 0
    assert "alignments_class_0/pose" in out
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS_PX) / 64)
    assert run(capsys, "parse_pose_csparc", path, "-o", pkl, "--class", 1)[0] == 0
    assert np.allclose(read_poses(pkl)[1], 1 / 64)


def test_poses_of_a_passthrough_file_are_joined_by_uid_not_by_row(tmp_path, pkl, capsys):
    moved = ("alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A")
    path = write_cs_file(tmp_path / "J5_particles.cs", moved)
    order = np.array([2, 0, 1])
    write_cs_file(
        tmp_path / "J5_passthrough_particles.cs",
        uid=(np.arange(3, dtype=np.uint64) + 7)[order],
        alignments3D__pose=np.array(VECTORS, np.float32)[order],
        alignments3D__shift=np.array(SHIFTS_PX, np.float32)[order],
    )
    assert run(capsys, "parse_pose_csparc", path, "-o", pkl)[0] == 0
    assert np.allclose(read_poses(pkl)[1], np.array(SHIFTS_PX) / 64)


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (("alignments3D/pose", "alignments3D/shift"), "no field alignments3D/pose"),
        (("alignments3D/shift",), "no field alignments3D/shift"),
        (("blob/shape",), "no field blob/shape, so the box is not known; give -D"),
        (("blob/psize_A",), "no field blob/psize_A, so the box is not known; give -D"),
    ],
)
def test_a_missing_pose_field_is_named(tmp_path, pkl, capsys, without, said):
    path = write_cs_file(tmp_path / "p.cs", without)
    code, out, error = run(capsys, "parse_pose_csparc", path, "-o", pkl)
    assert (code, out) == (2, "")
    assert said in error
    assert not pkl.exists()


def test_a_pose_that_is_not_a_number_is_named_by_row(tmp_path, pkl, capsys):
    vectors = np.array(VECTORS, np.float32)
    vectors[2, 1] = np.nan
    path = write_cs_file(tmp_path / "p.cs", alignments3D__pose=vectors)
    code, _, error = run(capsys, "parse_pose_csparc", path, "-o", pkl)
    assert code == 2
    assert "row 2 (0-based) has a pose that is not a number" in error


# --- parse_ctf_star -------------------------------------------------------------------------------


def test_star_ctf_takes_each_rows_optics_group(star, pkl, capsys):
    code, out, _ = run(capsys, "parse_ctf_star", star, "-o", pkl)
    assert code == 0
    wanted = [
        [64, 1.5, 15000, 14000, 45, 300, 2.7, 0.1, 0],
        [64, 3.0, 16000, 15500, -10, 200, 0.01, 0.07, 30],
        [64, 1.5, 9000, 8800, 0, 300, 2.7, 0.1, 90],
    ]
    assert np.allclose(read_ctf(pkl, 3), wanted, rtol=1e-6)
    assert read_pickle(pkl).dtype == np.float32
    assert "  defocus U          : 15000 A" in out
    assert "warning" not in out


def test_flags_fill_what_the_star_lacks(tmp_path, pkl, capsys):
    path = write_star(tmp_path / "p.star", particle_columns(groups=None))
    flags = ["-D", "64", "--Apix", "1.5", "--kv", "200", "--cs", "2", "-w", "0.07", "--ps", "15"]
    code, out, _ = run(capsys, "parse_ctf_star", path, "-o", pkl, *flags)
    assert code == 0
    ctf = read_ctf(pkl)
    assert np.allclose(ctf[:, [0, 1, 5, 6, 7, 8]], [64, 1.5, 200, 2, 0.07, 15])
    assert np.allclose(ctf[:, 2], [15000, 16000, 9000])
    assert out.count("warning") == 1  # the phase shift, which the file has
    assert "warning: --ps 15 is used, but the file says 0, 30, 90" in out


def test_flags_that_replace_the_stars_values_say_so(star, pkl, capsys):
    flags = ["-D", "32", "--Apix", "3", "--kv", "300", "-w", "0.2"]
    code, out, _ = run(capsys, "parse_ctf_star", star, "-o", pkl, *flags)
    assert code == 0
    assert np.allclose(read_ctf(pkl)[:, [0, 1, 5, 7]], [32, 3, 300, 0.2])
    for flag, found in (("--Apix 3", "1.5"), ("--kv 300", "200"), ("-w 0.2", "0.07, 0.1")):
        assert f"warning: {flag} is used, but the file says {found}" in out
    assert "warning: -D 32 is used, but the box in" in out


@pytest.mark.parametrize("flags", [[], ["--ps", "0"], ["--ps", "90"]])
def test_a_star_without_phase_shift_gets_zero_with_a_note_or_the_flags(
    tmp_path, pkl, capsys, flags
):
    columns = particle_columns()
    del columns["_rlnPhaseShift"]
    path = write_star(tmp_path / "p.star", columns, OPTICS)
    code, out, _ = run(capsys, "parse_ctf_star", path, "-o", pkl, *flags)
    assert code == 0
    assert (read_ctf(pkl)[:, 8] == float(flags[1] if flags else 0)).all()
    assert ("note: no _rlnPhaseShift" in out) == (not flags)
    assert "warning" not in out


@pytest.mark.parametrize(
    ("without", "flag"),
    [
        ("_rlnVoltage", "--kv"),
        ("_rlnSphericalAberration", "--cs"),
        ("_rlnAmplitudeContrast", "-w"),
        ("_rlnImagePixelSize", "--Apix"),
        ("_rlnImageSize", "-D"),
        ("_rlnDefocusV", ""),
    ],
)
def test_a_missing_ctf_column_is_named_with_its_flag(tmp_path, pkl, capsys, without, flag):
    columns, optics = particle_columns(), dict(OPTICS)
    (optics if without in optics else columns).pop(without)
    path = write_star(tmp_path / "p.star", columns, optics)
    code, out, error = run(capsys, "parse_ctf_star", path, "-o", pkl)
    assert (code, out) == (2, "")
    assert without in error
    assert str(path) in error
    assert flag in error
    assert not pkl.exists()


def test_a_value_that_is_no_number_is_named_and_nothing_becomes_nan(tmp_path, pkl, capsys):
    columns = particle_columns()
    columns["_rlnDefocusU"] = (15000, "nan", 9000)
    path = write_star(tmp_path / "p.star", columns, OPTICS)
    code, _, error = run(capsys, "parse_ctf_star", path, "-o", pkl)
    assert code == 2
    assert "row 1 (0-based)" in error
    assert "_rlnDefocusU = nan" in error


# --- parse_ctf_csparc -----------------------------------------------------------------------------


def test_cs_ctf_is_in_degrees_and_row_by_row(tmp_path, pkl, capsys):
    path = write_cs_file(tmp_path / "p.cs", blob__psize_A=np.array([1.5, 3, 1.5], np.float32))
    code, out, _ = run(capsys, "parse_ctf_csparc", path, "-o", pkl)
    assert code == 0
    ctf = read_ctf(pkl, 3)
    assert np.allclose(ctf[:, :2], [[64, 1.5], [64, 3], [64, 1.5]])
    assert np.allclose(ctf[:, 4], np.rad2deg([0.5, -0.25, 0]), atol=1e-5)
    assert np.allclose(ctf[:, 5:8], [[300, 2.7, 0.1], [200, 2.7, 0.1], [300, 2.7, 0.1]])
    assert np.allclose(ctf[:, 8], np.rad2deg([0, 0.5, 0]), atol=1e-5)
    assert "warning" not in out
    _, out, _ = run(capsys, "parse_ctf_csparc", path, "-o", pkl, "-D", 32, "--Apix", 3)
    assert np.allclose(read_ctf(pkl)[:, :2], [32, 3])
    assert "warning: -D 32 is used, but the box in blob/shape is 64 px" in out
    assert "warning: --Apix 3 is used, but the file says 1.5" in out


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("ctf/accel_kv", "no field ctf/accel_kv"),
        ("blob/psize_A", "no field blob/psize_A; give --Apix"),
        ("blob/shape", "give -D"),
    ],
)
def test_a_missing_ctf_field_is_named(tmp_path, pkl, capsys, without, said):
    path = write_cs_file(tmp_path / "p.cs", (without,))
    code, _, error = run(capsys, "parse_ctf_csparc", path, "-o", pkl)
    assert code == 2
    assert said in error
    assert not pkl.exists()


def test_a_missing_phase_shift_field_is_zero_with_a_note(tmp_path, pkl, capsys):
    path = write_cs_file(tmp_path / "p.cs", ("ctf/phase_shift_rad",))
    _, out, _ = run(capsys, "parse_ctf_csparc", path, "-o", pkl)
    assert (read_ctf(pkl)[:, 8] == 0).all()
    assert "note: no field ctf/phase_shift_rad, taken as 0" in out


def test_png_shows_both_curves_of_an_astigmatic_ctf(tmp_path, pkl, capsys):
    png = tmp_path / "plots" / "ctf.png"
    path = write_cs_file(tmp_path / "p.cs")
    assert run(capsys, "parse_ctf_csparc", path, "-o", pkl, "--png", png)[0] == 0
    picture = matplotlib.image.imread(png)[..., :3]
    for colour in ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)):
        near = np.abs(picture - np.array(colour) / 255).max(axis=-1) < 0.05
        rows, columns = np.nonzero(near)
        assert np.ptp(columns) > 0.7 * picture.shape[1]
        assert np.ptp(rows) > 0.5 * picture.shape[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("parse_pose_star p.star -o pose.npy", "-o pose.npy: the name must end in .pkl"),
        ("parse_pose_star none.star -o pose.pkl", "none.star: no such file"),
        ("parse_pose_star p.star -o pose.pkl -D 63", "-D 63: the box must be an even number"),
        ("parse_ctf_star p.star -o ctf.pkl --Apix 0", "--Apix 0.0: must be more than 0"),
        ("parse_ctf_star p.star -o ctf.pkl -w 7", "-w 7.0: must be at most 1"),
        ("parse_ctf_csparc p.star -o ctf.pkl", "p.star: not a .cs file"),
        ("parse_pose_csparc none.cs -o pose.pkl", "none.cs: no such file"),
    ],
)
def test_wrong_arguments_are_one_line(star, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(star.parent)
    code, out, error = run(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert said in error
    assert "\n" not in error
    assert not list(star.parent.rglob("*.pkl"))


@pytest.mark.parametrize("command", ["parse_pose_csparc", "parse_ctf_csparc"])
def test_a_cs_file_without_rows_is_refused(tmp_path, pkl, capsys, command):
    path = write_cs_file(tmp_path / "p.cs")
    write_cs(path, np.load(path)[:0])
    code, _, error = run(capsys, command, path, "-o", pkl)
    assert (code, pkl.exists()) == (2, False)
    assert error.endswith("p.cs: no particles in it")


@pytest.mark.parametrize("command", ["parse_pose_star", "parse_ctf_star"])
def test_a_star_file_without_rows_is_refused(tmp_path, pkl, capsys, command):
    columns = {name: [] for name in particle_columns()}
    code, _, error = run(capsys, command, write_star(tmp_path / "p.star", columns), "-o", pkl)
    assert (code, pkl.exists()) == (2, False)
    assert error.endswith("p.star: no particles in it")


@pytest.mark.parametrize(
    ("command", "field", "value", "said"),
    [
        ("parse_ctf_csparc", "blob/psize_A", np.nan, "row 2 (0-based) has blob/psize_A nan"),
        ("parse_ctf_csparc", "blob/psize_A", 0, "row 2 (0-based) has blob/psize_A 0.0"),
        ("parse_ctf_csparc", "ctf/accel_kv", 0, "row 2 (0-based) has a voltage of 0 kV"),
        ("parse_pose_csparc", "blob/psize_A", 0, "row 2 (0-based) has a pixel size that is not"),
    ],
)
def test_scales_and_voltages_that_cannot_be_never_reach_a_pickle(
    tmp_path, pkl, capsys, command, field, value, said
):
    path = write_cs_file(tmp_path / "p.cs")
    array = np.load(path)
    array[field][2] = value
    write_cs(path, array)
    code, _, error = run(capsys, command, path, "-o", pkl)
    assert (code, pkl.exists()) == (2, False)
    assert said in error
    assert "\n" not in error


# --- golden files, made by cryoDRGN from these inputs ---------------------------------------------


@pytest.mark.parametrize("flags", [[], ["-D", "180"]])
def test_poses_of_a_cryosparc_file_are_cryodrgns(shared_data, pkl, capsys, flags):
    real = shared_data / "real"
    source = real / "cryosparc_P12_J24_001_particles.cs"
    _, out, _ = run(capsys, "parse_pose_csparc", source, "-o", pkl, *flags)
    for ours, theirs in zip(read_poses(pkl), read_poses(real / "pose.cs.pkl"), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-6)  # float32 axis-angle there
    assert "warning" not in out


def test_ctf_of_a_cryosparc_file_is_cryodrgns(shared_data, pkl, capsys):
    real = shared_data / "real"
    source = real / "cryosparc_P12_J24_001_particles.cs"
    _, out, _ = run(capsys, "parse_ctf_csparc", source, "-o", pkl, "-D", 180, "--Apix", 2.95)
    assert np.allclose(read_ctf(pkl), read_ctf(real / "ctf2.pkl"), rtol=2e-7, atol=0)
    assert "warning" not in out


def test_poses_and_ctf_of_a_relion_3_0_file_are_cryodrgns(shared_data, pkl, capsys):
    real = shared_data / "real"
    source = real / "FinalRefinement-OriginalParticles-PfCRT.star"
    run(capsys, "parse_pose_star", source, "-o", pkl, "-D", 300)
    for ours, theirs in zip(read_poses(pkl), read_poses(real / "pose.star.pkl"), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-7)  # float32 here, float64 there
    flags = ["-D", "300", "--Apix", "1.035", "-w", "0.1"]
    _, out, _ = run(capsys, "parse_ctf_star", source, "-o", pkl, *flags)
    assert np.array_equal(read_ctf(pkl), read_ctf(real / "ctf1.pkl"))
    assert "warning" not in out


def test_a_subtomogram_file_gets_cryodrgns_rotations_and_ctf_but_zero_shifts(
    shared_data, pkl, capsys
):
    # The golden shifts are uninitialised memory, since the file has none.
    real = shared_data / "real"
    source = real / "sta_testing_bin8.star"
    _, out, _ = run(capsys, "parse_pose_star", source, "-o", pkl)
    rotation, shift = read_poses(pkl)
    assert np.allclose(rotation, read_poses(real / "sta_pose.pkl")[0], rtol=0, atol=1e-7)
    assert not shift.any()
    flags = ["-D", "512", "--Apix", "1.82"]
    _, out, _ = run(capsys, "parse_ctf_star", source, "-o", pkl, *flags)
    assert np.array_equal(read_ctf(pkl), read_ctf(real / "sta_ctf.pkl"))
    assert "warning: --Apix 1.82 is used, but the file says 1.96" in out
