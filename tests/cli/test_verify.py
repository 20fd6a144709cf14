"""frazil verify: a whole store passes, a flipped bit is named."""

from pathlib import Path

import pytest

from frazil.cli.main import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 20 particles."""
    assert main(["simulate", "-n", "20", "-D", "32", "-o", str(tmp_path / "set")]) == 0
    out = tmp_path / "particles.frz"
    assert main(["preprocess", str(tmp_path / "set" / "particles.star"), "-o", str(out)]) == 0
    return out


def test_a_whole_store_passes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(store)]) == 0
    assert "20 images in 1 shards" in capsys.readouterr().out


def test_a_flipped_bit_is_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = store / "shards" / "00000.b0.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert main(["verify", str(store)]) == 2
    error = capsys.readouterr().err
    assert "00000.b0.npy" in error
    assert "rows 0 to" in error


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path)]) == 2
