"""frazil select: from a store, a run and particle files to selections that every command takes."""

from pathlib import Path

import numpy as np
import pytest

from frazil.analysis.select import stratified
from frazil.cli.main import main
from frazil.errors import InputError
from frazil.io.images import open_particles
from frazil.io.pickles import read_pickle, write_pickle
from frazil.io.selection_file import read_selection_file
from frazil.io.selections import random_rows
from frazil.runs.folder import Run
from frazil.store.reader import ParticleStore
from tests.analysis.tiny_run import PARTICLES, ROWS, make_latents, make_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/, its store particles.frz, and simulated/particles.star and .cs."""
    folder = tmp_path_factory.mktemp("select")
    make_run(folder)
    labels = folder / "run" / "analyze.2" / "kmeans2"
    labels.mkdir(parents=True)
    np.save(labels / "labels.npy", np.repeat([0, 1], [20, 30]).astype(np.int32))
    return folder


def rows_of(out: Path) -> list[int]:
    """Return the rows in a pickle."""
    return read_pickle(out).tolist()


def select(place: Path, source: str, *arguments: str) -> None:
    assert main(["select", str(place / source), *arguments]) == 0


def test_a_condition_on_a_store_chooses_its_rows(place: Path, tmp_path: Path) -> None:
    out, rest = tmp_path / "a.pkl", tmp_path / "b.pkl"
    condition = "defocus_u_ang > median(defocus_u_ang) and half_set == 1 and not nonfinite"
    select(place, "particles.frz", "--where", condition, "-o", str(out), "-s", str(rest))
    rows = ParticleStore.open(place / "particles.frz").rows
    defocus = rows["defocus_u_ang"].astype(float)
    expected = np.flatnonzero((defocus > np.median(defocus)) & (rows["half_set"] == 1))
    assert rows_of(out) == expected.tolist() and len(expected)
    assert sorted(rows_of(out) + rows_of(rest)) == list(range(PARTICLES))


def test_latents_and_clusters_of_a_run_belong_to_its_own_rows(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pkl"
    select(place, "run", "--where", "z0 < 0 and z1 > 0.2", "-o", str(out))
    z = make_latents(2)
    assert rows_of(out) == ROWS[(z[:, 0] < 0) & (z[:, 1] > 0.2)].tolist()
    select(place, "run", "--epoch", "1", "--where", "z1 > 0.2", "-o", str(out))
    assert rows_of(out) == ROWS[make_latents(1)[:, 1] > 0.2].tolist()
    select(place, "run", "--where", "cluster == 1 and kmeans2 == 1", "-o", str(out))
    assert rows_of(out) == ROWS[20:].tolist()


def test_rows_of_a_run_that_do_not_ascend_keep_their_latents(place: Path, tmp_path: Path) -> None:
    make_run(tmp_path)
    run = Run.open(tmp_path / "run")
    run.write_rows(ROWS[::-1].copy())
    out = tmp_path / "a.pkl"
    select(tmp_path, "run", "--where", "z0 < 0", "-o", str(out))
    assert rows_of(out) == sorted(ROWS[::-1][make_latents(2)[:, 0] < 0].tolist())


@pytest.mark.parametrize("target", ["particles.frz", "simulated/particles.star"])
def test_a_selection_means_the_same_particles_in_store_and_star(
    place: Path, tmp_path: Path, target: str
) -> None:
    chosen, out = tmp_path / "a.sel", tmp_path / "a.pkl"
    select(place, "run", "--where", "z0 < 0", "-o", str(chosen))
    select(place, target, "--and", str(chosen), "-o", str(out))
    assert rows_of(out) == ROWS[:20].tolist()
    selection = read_selection_file(chosen)
    assert selection.rule == "z0 < 0" and selection.origin == str(place / "run")
    assert len(selection) == 20 and selection.total == PARTICLES


def test_selections_of_a_cs_go_by_uid(place: Path, tmp_path: Path) -> None:
    chosen, out = tmp_path / "a.sel", tmp_path / "a.pkl"
    select(place, "simulated/particles.cs", "--where", "ctf/df1_A > 15000", "-o", str(chosen))
    identities = read_selection_file(chosen).identities
    assert identities.uid is not None and identities.source is None
    select(place, "simulated/particles.cs", "--where", f'sel("{chosen}")', "-o", str(out))
    table = open_particles(place / "simulated" / "particles.cs")
    assert rows_of(out) == np.flatnonzero(table.rows["defocus_u_ang"] > 15000).tolist()


def test_selections_combine(place: Path, tmp_path: Path) -> None:
    for name, rows in (("a", [1, 2, 3, 4]), ("b", [3, 4, 5]), ("c", [4])):
        write_pickle(tmp_path / f"{name}.pkl", np.array(rows))
    a, b, c = (str(tmp_path / f"{name}.pkl") for name in "abc")
    out = tmp_path / "o.pkl"
    for arguments, expected in (
        (["--and", a, "--and", b], [3, 4]),
        (["--or", a, "--or", b], [1, 2, 3, 4, 5]),
        (["--or", a, "--not", c], [1, 2, 3]),
        (["--and", a, "--or", b, "--not", c], [1, 2, 3, 5]),
        (["--where", "row < 2", "--or", c], [0, 1, 4]),
        (["--where", f"(sel('{a}') or sel('{b}')) and not sel('{c}')"], [1, 2, 3, 5]),
        (["--and", a, "--where", f"not sel('{b}')"], [1, 2]),
    ):
        select(place, "particles.frz", *arguments, "-o", str(out))
        assert rows_of(out) == expected, arguments


def test_columns_of_your_own_join_the_rows(place: Path, tmp_path: Path) -> None:
    score = np.arange(len(ROWS)) / 10
    np.save(tmp_path / "score.npy", score)
    write_pickle(tmp_path / "w.pkl", np.stack([score, -score], 1))
    (tmp_path / "name.txt").write_text("\n".join("ab"[k % 2] for k in range(len(ROWS))))
    given = [f"s={tmp_path / 'score.npy'}", f"w={tmp_path / 'w.pkl'}", f"t={tmp_path / 'name.txt'}"]
    out = tmp_path / "o.pkl"
    columns = [part for text in given for part in ("--column", text)]
    condition = "s > 1 and w1 > -2 and w[0] < 3 and t == 'a'"
    select(place, "run", *columns, "--where", condition, "-o", str(out))
    assert rows_of(out) == ROWS[12:20:2].tolist()


def test_a_seed_gives_the_subset_of_cryodrgn(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.pkl"
    select(place, "particles.frz", "-n", "7", "--seed", "3", "-o", str(out))
    assert rows_of(out) == random_rows(PARTICLES, 7, seed=3).tolist()
    select(place, "particles.frz", "--frac", "0.5", "-o", str(out))
    assert rows_of(out) == random_rows(PARTICLES, fraction=0.5).tolist()


def test_halves_are_all_particles_once(place: Path, tmp_path: Path) -> None:
    select(place, "run", "--halves", "--stratify", "cluster", "-o", str(tmp_path / "h.pkl"))
    a, b = (set(rows_of(tmp_path / f"h_{half}.pkl")) for half in "ab")
    assert not a & b and sorted(a | b) == ROWS.tolist()
    assert len(a & set(ROWS[:20].tolist())) == 10 and len(a) == 25


@pytest.mark.parametrize("seed", range(5))
def test_strata_get_their_share_within_one_particle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
    strata[:4] = range(4)
    count = int(rng.integers(1, 200))
    drawn = stratified(strata, count, seed)
    assert len(drawn) == count == len(np.unique(drawn)) and (np.diff(drawn) > 0).all()
    exact = np.bincount(strata) * count / 200
    assert (np.abs(np.bincount(strata[drawn], minlength=4) - exact) < 1).all()
    assert np.array_equal(drawn, stratified(strata, count, seed))
    assert len(stratified(strata, 200, seed)) == 200


def test_a_column_of_many_values_is_stratified_by_ranks(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.pkl"
    arguments = ["--stratify", "defocus_u_ang", "--frac", "0.5", "-o", str(out)]
    select(place, "particles.frz", *arguments)
    defocus = ParticleStore.open(place / "particles.frz").rows["defocus_u_ang"]
    tenths = np.argsort(np.argsort(defocus)) * 10 // PARTICLES
    assert np.bincount(tenths[rows_of(out)], minlength=10).tolist() == [3] * 10


def test_unknown_values_are_told_not_passed_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = np.arange(PARTICLES, dtype=float)
    score[:7] = np.nan
    np.save(tmp_path / "s.npy", score)
    column, out = ["--column", f"s={tmp_path / 's.npy'}"], ["-o", str(tmp_path / "o.pkl")]
    select(place, "particles.frz", *column, "--where", "not s > 10", *out)
    assert f"s is not known of 7 of {PARTICLES} particles" in capsys.readouterr().out
    assert rows_of(tmp_path / "o.pkl") == list(range(11))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "z0 > 1"], "no such column; there are row, uid"),
        (["--where", "row > 1000"], "no particle is chosen; nothing was written"),
        (["--and", "none.sel"], "none.sel: no such file"),
        (["-n", "61"], "-n 61: must be from 1 to the 60"),
        (["--epoch", "1"], "is for run folders"),
        (["--stratify", "source"], "is for a random draw"),
        (["--stratify", "no", "-n", "3"], "--stratify no: no such column"),
        (["--column", "a"], "NAME=FILE is wanted"),
        (["--column", "a=none.npy"], "none.npy: no such file"),
        (["--where", "group == 'a'"], "group is not known of any particle"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    place: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "o.sel"
    assert main(["select", str(place / "particles.frz"), *arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_columns_of_another_length_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "s.npy", np.zeros(PARTICLES))
    arguments = ["--column", f"s={tmp_path / 's.npy'}", "-o", str(tmp_path / "o.sel")]
    assert main(["select", str(place / "run"), *arguments]) == 2
    assert f"{PARTICLES} rows, but {place / 'run'} has {len(ROWS)}" in capsys.readouterr().err


def test_the_columns_are_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    select(place, "run", "--list")
    listed = capsys.readouterr().out
    assert f"{place / 'run'}: {len(ROWS)} particles" in listed
    for name in ("z2", "kmeans2", "cluster", "defocus_u_ang", "half_set", "clipped"):
        assert f"\n  {name} " in listed
    assert "\n  uid " not in listed  # unknown in a .star


def test_a_selection_is_drawn_from_but_not_turned_into_rows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "a.sel"
    select(place, "run", "--where", "z0 < 0", "-o", str(chosen))
    assert main(["select", str(chosen), "-n", "5", "-o", str(tmp_path / "b.sel")]) == 0
    assert len(read_selection_file(tmp_path / "b.sel")) == 5
    assert main(["select", str(chosen), "-n", "5", "-o", str(tmp_path / "b.pkl")]) == 2
    assert "rows of which file?" in capsys.readouterr().err


def test_too_many_of_a_stratum_are_refused() -> None:
    with pytest.raises(InputError, match="must be from 1 to the 3"):
        stratified(np.zeros(3, np.int64), 4, 0)


@pytest.mark.parametrize("order", ["same", "reversed"])
def test_ind_of_preprocess_takes_a_selection_whatever_the_order(
    place: Path, tmp_path: Path, order: str
) -> None:
    """A reordered star: the same particles, not the same rows."""
    chosen = tmp_path / "a.sel"
    select(place, "run", "--where", "z0 < 0", "-o", str(chosen))
    star = place / "simulated" / "particles.star"
    lines = star.read_text().splitlines()
    rows = [line for line in lines if "@" in line]
    head = lines[: lines.index(rows[0])]
    shown = rows if order == "same" else rows[::-1]
    copy = place / "simulated" / f"{order}.star"
    copy.write_text("\n".join([*head, *shown]) + "\n")
    out = tmp_path / "o.frz"
    assert main(["preprocess", str(copy), "--ind", str(chosen), "-o", str(out)]) == 0
    packed = ParticleStore.open(out)
    wanted = ROWS[:20] if order == "same" else ROWS[:20][::-1]
    assert packed.rows["index"].tolist() == wanted.tolist()
    assert packed.manifest.dropped == {"--ind": PARTICLES - 20}


@pytest.mark.parametrize(
    ("command", "source", "kind"),
    [
        ("filter_star", "simulated/particles.star", ".star"),
        ("write_star", "simulated/particles.star", ".star"),
        ("filter_cs", "simulated/particles.cs", ".cs"),
    ],
)
def test_ind_of_the_small_commands_takes_a_selection(
    place: Path, tmp_path: Path, command: str, source: str, kind: str
) -> None:
    chosen, out = tmp_path / "a.sel", tmp_path / f"o{kind}"
    select(place, "run", "--where", "z0 < 0", "-o", str(chosen))
    assert main([command, str(place / source), "--ind", str(chosen), "-o", str(out)]) == 0
    assert open_particles(out).rows["index"].tolist() == ROWS[:20].tolist()


def test_what_has_no_identities_says_how_to_get_rows(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tmp_path / "a.sel"
    select(place, "run", "--where", "z0 < 0", "-o", str(chosen))
    poses = str(place / "simulated" / "poses.pkl")
    arguments = ["--ind", str(chosen), "-o", str(tmp_path / "o.pkl")]
    assert main(["filter_pkl", poses, *arguments]) == 2
    assert "frazil select FILE --and SEL -o ind.pkl" in capsys.readouterr().err
