"""Checkpoints: identity of write and read, and what a kill leaves."""

import errno
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from frazil.errors import BudgetError, CorruptDataError, MissingFileError
from frazil.runs.checkpoint import load_checkpoint, save_checkpoint, with_prefix, without_prefix


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "model.w": torch.randn(3, 4),
        "noise": torch.Generator().get_state(),
        "step": torch.tensor(7.0),
        "view": torch.randn(4, 6).T[::2],
    }


def test_tensors_and_facts_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors, facts = _tensors(), {"epoch": 3, "seconds": 0.1, "name": "é"}
    save_checkpoint(tmp_path / "c.safetensors", tensors, facts)
    found, described = load_checkpoint(tmp_path / "c.safetensors")
    assert described == {"format": 1, **facts}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_kill_while_writing_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, _tensors(), {"epoch": 1})

    def half_written(file: Path, data: bytes) -> int:
        with file.open("wb") as opened:
            opened.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_written)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, _tensors(), {"epoch": 2})
    assert load_checkpoint(path)[1]["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_checkpoint(tmp_path / "c.safetensors", _tensors(), {})
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("other", "c.safetensors")]
    assert modes[0] == modes[1]


def test_damage_and_strangers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(MissingFileError, match=r"c\.safetensors"):
        load_checkpoint(path)
    save_checkpoint(path, _tensors(), {})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptDataError, match="not a whole"):
        load_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(CorruptDataError, match="did not write"):
        load_checkpoint(path)
    save_file({"w": torch.zeros(2)}, path, metadata={"frazil": '{"format": 9}'})
    with pytest.raises(CorruptDataError, match="format 9"):
        load_checkpoint(path)


def test_prefixes_keep_parts_apart() -> None:
    a, b = {"w": torch.zeros(1)}, {"w": torch.ones(1), "w.x": torch.ones(2)}
    joined = {**with_prefix("a", a), **with_prefix("ab", b)}
    assert without_prefix("a", joined).keys() == a.keys()
    assert without_prefix("ab", joined).keys() == b.keys()


def test_a_full_disk_is_one_line_and_leaves_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"a": torch.zeros(2)}, {})

    def full(file: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(BudgetError, match="disk"):
            save_checkpoint(path, {"a": torch.ones(2)}, {})
    assert torch.equal(load_checkpoint(path)[0]["a"], torch.zeros(2))
    assert list(tmp_path.iterdir()) == [path]
