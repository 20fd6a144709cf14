"""frazil select_random: cryoDRGN's subsets, from a number, a file or a store."""

from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.mrc import StackWriter
from frazil.io.pickles import read_indices, read_pickle
from frazil.io.selections import other_rows, random_rows
from tests.store.made import make_store


def test_the_subset_is_cryodrgns():
    # Golden: cryodrgn_utils select_random 1375854 -n 200000.
    rows = random_rows(1375854, 200000)
    assert rows[:5].tolist() == [7, 13, 19, 24, 36]
    assert len(rows) == 200000


@pytest.mark.parametrize(
    ("total", "fraction", "golden"),
    [(10, 0.55, [1, 2, 4, 8, 9]), (11, 0.5, [2, 4, 6, 9, 10])],
)
def test_a_fraction_is_rounded_down_as_cryodrgn_does(total, fraction, golden):
    # Golden: cryodrgn_utils 4.3.1 select_random TOTAL --frac FRACTION.
    assert random_rows(total, fraction=fraction).tolist() == golden


def test_rows_are_distinct_ascending_and_follow_the_seed():
    rows = random_rows(1000, 300, seed=3)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, random_rows(1000, 300, seed=3))
    assert not np.array_equal(rows, random_rows(1000, 300, seed=4))


def test_selection_and_rest_are_all_rows_once(tmp_path: Path, capsys):
    one, rest = tmp_path / "a" / "ind.pkl", tmp_path / "rest.pkl"
    assert main(["select_random", "50", "-n", "20", "-o", str(one), "-s", str(rest)]) == 0
    chosen, others = read_indices(one), read_indices(rest)
    assert sorted([*chosen, *others]) == list(range(50))
    assert np.array_equal(others, other_rows(chosen, 50))
    assert read_pickle(one).dtype == np.int64
    assert f"{one}: 20 rows selected: 2 " in capsys.readouterr().out


def test_the_number_may_be_that_of_a_stack(tmp_path: Path):
    stack, out = tmp_path / "in.mrcs", tmp_path / "ind.pkl"
    with StackWriter(stack, (8, 8), 12, 1.0) as writer:
        writer.write(np.ones((12, 8, 8), np.float32))
    assert main(["select_random", str(stack), "--frac", "0.5", "-o", str(out)]) == 0
    assert np.array_equal(read_indices(out), random_rows(12, 6))


def test_the_number_may_be_that_of_a_store(tmp_path: Path):
    store, out = make_store(tmp_path, 9, 8), tmp_path / "ind.pkl"
    assert main(["select_random", str(store.path), "-n", "4", "-o", str(out)]) == 0
    assert np.array_equal(read_indices(out), random_rows(9, 4))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("10 -n 11", "-n 11: must be from 1 to the 10 particles there are"),
        ("10 -n 0", "-n 0: must be from 1"),
        ("10 --frac 1.5", "--frac 1.5: must be more than 0 and at most 1"),
        ("10 --frac 0", "--frac 0: must be more than 0"),
        ("10 --frac nan", "--frac nan: must be more than 0"),
        ("10 --frac 0.01", "selects none"),
        ("10 -n 2 --frac 0.5", "either -n or --frac, not both"),
        ("10", "give either -n or --frac"),
        ("10 -n 2 --seed -1", "--seed -1: must be from 0"),
        ("nothing.frz -n 2", "nothing.frz: no such file"),
        ("99999999999999999999 -n 2", "particles: more than 4294967296; check the number"),
        ("10 -n 2 -s ind.pkl", "-s ind.pkl: is the file of -o"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["select_random", *arguments.split(), "-o", "ind.pkl"]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())
