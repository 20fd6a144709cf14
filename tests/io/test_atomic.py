"""A file is there and whole, or not there."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from frazil.errors import BudgetError, InputError, MissingFileError
from frazil.io.atomic import atomic_path, write_npy_atomic, write_text_atomic


def test_a_block_that_ends_well_leaves_only_the_named_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".a.txt.")
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_any_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    write_text_atomic(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_is_one_line_with_the_file_and_the_cause(tmp_path: Path) -> None:
    with (
        pytest.raises(BudgetError, match=r"a\.bin: the disk.*full") as caught,
        atomic_path(tmp_path / "a.bin") as temporary,
    ):
        temporary.write_bytes(b"x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert isinstance(caught.value.__cause__, OSError)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_really_full_device_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(BudgetError),
        atomic_path(tmp_path / "a.bin"),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_other_os_errors_are_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.bin"):
        raise OSError(errno.EIO, "input/output error")
    assert not isinstance(caught.value, BudgetError)


def test_a_folder_that_is_not_there_or_not_writable_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"), atomic_path(tmp_path / "nowhere" / "a"):
        pass
    with pytest.raises(InputError, match="may not be written"), atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folder_in_the_place_of_the_file_is_named_before_anything_is_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.pkl").mkdir()
    with pytest.raises(InputError, match=r"a\.pkl: is a folder"):
        write_text_atomic(tmp_path / "a.pkl", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]


def test_a_read_only_file_system_is_named_though_cleaning_up_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with (
        pytest.raises(InputError, match=r"a\.bin: may not be written .*choose another"),
        atomic_path(tmp_path / "a.bin"),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_npy_keeps_the_array_and_refuses_objects(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    write_npy_atomic(tmp_path / "a.cs", array)
    assert [p.name for p in tmp_path.iterdir()] == ["a.cs"]
    assert np.array_equal(np.load(tmp_path / "a.cs"), array)
    with pytest.raises(InputError, match="objects"):
        write_npy_atomic(tmp_path / "b.npy", np.array([{}], dtype=object))


def test_the_file_is_synced_before_its_new_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").resolve().name
        seen.append((name[:7], (tmp_path / "a.txt").exists()))

    monkeypatch.setattr("frazil.io.atomic.os.fsync", record)
    write_text_atomic(tmp_path / "a.txt", "x")
    assert seen == [(".a.txt.", False), (tmp_path.name[:7], True)]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12)[::2],
        np.float32(3.5).reshape(()),
        np.zeros(0, [("a", "<f4", (2,))]),
        np.zeros(2, [(f"a_long_name_of_column_{i:05d}", "<f4") for i in range(2000)]),
    ],
    ids=["C order", "F order", "strided", "scalar", "empty structured", "long header"],
)
def test_any_array_comes_back_from_npy_as_it_was(tmp_path, array):
    write_npy_atomic(tmp_path / "a.npy", array)
    read = np.load(tmp_path / "a.npy", allow_pickle=False, max_header_size=1 << 30)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
