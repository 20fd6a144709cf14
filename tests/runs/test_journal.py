"""The journal: lines come back, and a restart repeats none."""

from pathlib import Path

import pytest

from frazil.errors import CorruptDataError
from frazil.runs.journal import Journal, read_journal


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"loss": 0.1})
        journal.append({"event": "epoch"})
    assert read_journal(path) == [{"loss": 0.1}, {"event": "epoch"}]


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 1})
        position = journal.synced_position()
        journal.append({"n": 2})
    with Journal(path, position) as journal:
        journal.append({"n": 3})
    assert read_journal(path) == [{"n": 1}, {"n": 3}]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"n": 1}\n{"n": 2')
    assert read_journal(path) == [{"n": 1}]


def test_a_journal_shorter_than_its_checkpoint_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"n": 1}\n')
    with pytest.raises(CorruptDataError, match="9 bytes found, 20 wanted"):
        Journal(path, 20)
