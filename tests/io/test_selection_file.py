"""Selections know particles by identity: whatever the order, the folder or the file kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, FrazilError, InputError
from frazil.io.identities import Identities, find, match_sources, occurrences
from frazil.io.particles import empty_rows
from frazil.io.selection_file import Selection, read_rows, read_selection_file, write_selection

Rows = np.ndarray[Any, Any]


def particles(keys: list[tuple[int, int]], uid: bool = False) -> Rows:
    """Return rows of (stack, index), with poses that differ."""
    rows = empty_rows(len(keys))
    rows["source"], rows["index"] = np.array(keys).T
    rows["rotation"] = np.arange(len(keys))[:, None, None]
    rows["uid"] = 100 + np.arange(len(keys)) if uid else 0
    return rows


def written(path: Path, rows: Rows, chosen: list[int], sources: tuple[str, ...]) -> Path:
    """Write a selection of some rows."""
    taken = Identities.of(rows, sources).take(np.array(chosen))
    write_selection(path, Selection(taken, "a rule", "origin.star", len(rows)))
    return path


def resolved(path: Path, rows: Rows, sources: tuple[str, ...], notes: list[str]) -> Rows:
    """Return the rows that a selection means in a set."""
    return read_rows(
        path, len(rows), lambda _: Identities.of(rows, sources), "there.star", notes.append
    )


@given(st.data())
def test_a_selection_finds_its_particles_in_any_order(tmp_path_factory: Any, data: Any) -> None:
    keys = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1))
    uid = data.draw(st.booleans())
    rows, sources = particles(keys, uid), ("/a/x.mrcs", "/a/y.mrcs", "/b/x.mrcs", "/b/z.mrcs")
    places = st.integers(0, len(rows) - 1)
    chosen = sorted(data.draw(st.sets(places, min_size=1)))
    path = written(tmp_path_factory.mktemp("s") / "a.sel", rows, chosen, sources)
    # Rows over one image keep their order; all others move freely.
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    keyed = np.array([k[0] * 100 + k[1] for k in keys])
    if not uid:
        for key in np.unique(keyed):
            where = np.flatnonzero(keyed[order] == key)
            order[where] = np.sort(order[where])
    found = resolved(path, rows[order], sources, [])
    assert sorted(order[found].tolist()) == chosen
    assert (np.diff(found) > 0).all()


def test_swapped_rows_over_one_image_are_refused_not_mistaken(tmp_path: Path) -> None:
    rows, sources = particles([(0, 1), (0, 1), (0, 2)]), ("/a/x.mrcs",)
    path = written(tmp_path / "a.sel", rows, [1], sources)
    assert resolved(path, rows, sources, []).tolist() == [1]
    with pytest.raises(InputError, match=r"1 rows of there.star have another pose.*row 1"):
        resolved(path, rows[[1, 0, 2]], sources, [])


def test_all_rows_over_an_image_are_taken_when_the_selection_does_not_tell_them_apart(
    tmp_path: Path,
) -> None:
    sources = ("/a/x.mrcs",)
    path = written(tmp_path / "a.sel", particles([(0, 1), (0, 2)]), [0], sources)
    notes: list[str] = []
    expanded = particles([(0, 2), (0, 1), (0, 1)])
    assert resolved(path, expanded, sources, notes).tolist() == [1, 2]
    assert "all rows of an image are taken" in notes[0]


def test_particles_that_are_not_there_are_counted_and_named(tmp_path: Path) -> None:
    sources = ("/a/x.mrcs", "/a/y.mrcs")
    rows = particles([(0, 1), (0, 2), (1, 7)])
    path = written(tmp_path / "a.sel", rows, [0, 1, 2], sources)
    message = r"2 of its 3 particles are not in there.star, the first is image 2 \(0-based\) of"
    with pytest.raises(InputError, match=message):
        resolved(path, rows[:1], sources, [])


def test_uids_and_images_are_not_mixed_up(tmp_path: Path) -> None:
    rows = particles([(0, 1), (0, 2)], uid=True)
    known = Identities(uid=np.array([100], np.uint64))
    write_selection(tmp_path / "a.sel", Selection(known, "r", "o.cs", 2))
    assert resolved(tmp_path / "a.sel", rows, ("/a",), []).tolist() == [0]
    with pytest.raises(InputError, match=r"has uids, there\.star has images"):
        resolved(tmp_path / "a.sel", particles([(0, 1)]), ("/a",), [])


def test_moved_stacks_are_known_by_the_unique_end_of_their_path() -> None:
    code, notes = match_sources(
        ("/old/job1/a.mrcs", "/old/job2/a.mrcs", "/old/b.mrcs", "/old/c.mrcs"),
        ("/new/x/job2/a.mrcs", "/new/x/job1/a.mrcs", "/new/b.mrcs", "/p/c.mrcs", "/q/c.mrcs"),
    )
    # Of two c.mrcs none is taken.
    assert code[:4].tolist() == [1, 0, 2, -1]
    assert "3 of 4 stacks are in another folder" in notes[0]


def test_the_same_path_goes_before_a_similar_one() -> None:
    code, notes = match_sources(("/a/x.mrcs", "/b/x.mrcs"), ("/b/x.mrcs", "/a/x.mrcs"))
    assert code[:2].tolist() == [1, 0] and not notes


def test_a_stack_of_the_same_name_elsewhere_is_not_the_same(tmp_path: Path) -> None:
    """Duplicated basenames in two folders: never the other one's particle."""
    sources = ("/a/x.mrcs", "/b/x.mrcs")
    path = written(tmp_path / "a.sel", particles([(0, 1), (1, 1)]), [1], sources)
    assert resolved(path, particles([(1, 1), (0, 1)]), sources, []).tolist() == [0]
    assert resolved(path, particles([(0, 1), (1, 1)]), sources[::-1], []).tolist() == [0]


@given(st.lists(st.integers(0, 5)))
def test_occurrences_count_equal_keys_before(keys: list[int]) -> None:
    expected = [keys[:place].count(key) for place, key in enumerate(keys)]
    assert occurrences(np.array(keys, np.int64)).tolist() == expected


def test_identities_of_different_kinds_have_nothing_in_common() -> None:
    uids = Identities(uid=np.array([1], np.uint64))
    images = Identities(source=np.array([0]), index=np.array([0]), sources=("a",))
    assert find(uids, images) is None and find(images, uids) is None
    assert find(uids, uids) is not None


def test_numpy_reads_a_selection_without_pickle(tmp_path: Path) -> None:
    path = written(tmp_path / "a.sel", particles([(0, 1), (1, 5)]), [1], ("/a", "/ö"))
    with np.load(path, allow_pickle=False) as arrays:
        assert str(arrays["rule"]) == "a rule" and int(arrays["total"]) == 2
        assert arrays["sources"][arrays["source"]].tolist() == ["/ö".encode()]
        assert arrays["index"].tolist() == [5]
    assert read_selection_file(path).identities.sources == ("/ö",)


def test_a_damaged_selection_is_refused_whatever_byte_is_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "a.sel", particles([(0, 1), (1, 5)]), [0, 1], ("/a", "/b"))
    whole = path.read_bytes()
    before = read_selection_file(path)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 300).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        try:
            after = read_selection_file(path)
        except FrazilError:
            refused += 1
            continue
        # A byte of the zip that means nothing (times, attributes): the content is what it was.
        assert np.array_equal(after.identities.index, before.identities.index)
        assert after.identities.sources == before.identities.sources
    assert refused > 200
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises((CorruptDataError, InputError)):
            read_selection_file(path)


def test_a_selection_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sel"
    with path.open("wb") as file:
        np.savez_compressed(file, format=np.array(1), uid=np.zeros(1 << 20, np.uint64))
    with pytest.raises(InputError, match="not a selection"):
        read_selection_file(path)


@pytest.mark.parametrize(
    ("text", "rows"),
    [("2\n0\n", [2, 0]), ("# rows\n2\n\n0\n", [0, 2]), ("uid:101\n8@x.mrcs\n", [1, 2])],
)
def test_pick_lists_name_rows_uids_or_images(tmp_path: Path, text: str, rows: list[int]) -> None:
    path = tmp_path / "picks.txt"
    path.write_text(text)
    there = particles([(0, 1), (0, 2), (0, 7)], uid=True)
    assert resolved(path, there, ("/a/x.mrcs",), []).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uid:7\n", r"picks.txt:1: names a particle that is not in there.star"),
        ("# a\n0\n9@x.mrcs", r"picks.txt:3: names a particle"),
        ("# a\n3\n", r"picks.txt:2: row 3, but there.star has 3 particles"),
        ("0\nrow one\n", r"picks.txt:2: 'row one': a row"),
        ("0@x.mrcs\n", r"picks.txt:1: '0@x.mrcs'"),
        ("uid:-1\n", r"picks.txt:1"),
        ("# nothing\n", "the selection is empty"),
    ],
)
def test_bad_picks_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "picks.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        resolved(path, particles([(0, 1), (0, 2), (0, 7)], uid=True), ("/a/x.mrcs",), [])
