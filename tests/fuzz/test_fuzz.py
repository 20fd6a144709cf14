"""Damaged files are refused in one line, or read: no traceback, no hang, no excess, no code run."""

import os
import pickle
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frazil.errors import CorruptDataError, InputError, MissingFileError
from tests.fuzz import guard
from tests.fuzz.guard import BrokenPromiseError, read_guarded
from tests.fuzz.mutations import mutate
from tests.fuzz.readers import MARK, READERS, Reader


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    made = READERS[request.param](tmp_path_factory.mktemp("fuzz") / request.param)
    made.read(made.valid())  # what is imported late is imported now
    return made


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(random=st.randoms(use_true_random=False))
def test_a_damaged_file_is_refused_in_one_line_or_read(reader: Reader, random: Random) -> None:
    path, size_bytes = reader.damage(random)
    read_guarded(reader.read, path, size_bytes)
    assert not Path(MARK).exists()


def test_the_damage_is_real_and_of_every_kind() -> None:
    data = bytes(range(256)) * 8 + b" 12 13 14 "
    made = {mutate(data, Random(seed), (b"token",)) for seed in range(500)}
    assert len(made) > 450 and data not in made - {data}
    assert any(len(m) < len(data) for m in made) and any(len(m) > len(data) for m in made)
    assert any(b"token" in m for m in made)
    assert mutate(b"", Random(0))


def raises(_path: Path) -> None:
    raise KeyError("rlnImageName")


def says_nothing(_path: Path) -> None:
    raise InputError


def loops(_path: Path) -> None:
    while True:
        pass


def takes_too_much(_path: Path) -> object:
    return np.zeros(guard.BASE_BYTES + 100_000)


def takes_space_unseen(_path: Path) -> object:
    return torch.empty(1 << 42, dtype=torch.uint8)


def runs_a_program(_path: Path) -> None:
    os.system("true")


def runs_a_pickle(_path: Path) -> None:
    pickle.loads(b"cbuiltins\nexec\n(S'a = 1'\ntR.")


def writes(path: Path) -> None:
    path.write_text("x")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (raises, "KeyError"),
        (says_nothing, "no line"),
        (loops, "worked for more than"),
        (takes_too_much, "bytes for a file of 10"),
        (takes_space_unseen, "RuntimeError"),
        (runs_a_program, r"os\.system"),
        (runs_a_pickle, "exec"),
        (writes, "open"),
    ],
)
def test_the_guard_sees_every_broken_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: object, words: str
) -> None:
    monkeypatch.setattr(guard, "CPU_S", 0.2)
    with pytest.raises(BrokenPromiseError, match=words):
        read_guarded(bad, tmp_path / "x", 10)  # type: ignore[arg-type]
    assert read_guarded(Path.exists, tmp_path, 10) == "read"


def test_an_error_is_one_line_that_can_be_printed_whatever_a_file_put_into_it() -> None:
    for kind in (InputError, MissingFileError, CorruptDataError):
        assert str(kind("a\nb\udc80c\x1b[1m, 5 \u00c5")) == "a\\nb\\udc80c\\x1b[1m, 5 \u00c5"
        assert str(kind("one line")) == "one line"


def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path: Path) -> None:
    for number, token in enumerate(READERS["pkl"].tokens[:4]):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(token if token.endswith(b".") else token + b".")
        with pytest.raises(InputError, match="refused, because unpickling it would run"):
            READERS["pkl"].read(None, path)  # type: ignore[arg-type]
    assert not Path(MARK).exists()
