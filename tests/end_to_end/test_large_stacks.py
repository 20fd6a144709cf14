"""Stacks beyond 4 and 8 GiB, named by 32-bit indices, give the right particles to a store.

The stacks are sparse files: they take no disk where nothing was written.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.io.cryosparc import write_cs
from frazil.io.mrc import HEADER_BYTES
from frazil.io.mrc_writer import StackWriter
from frazil.io.pickles import write_pickle
from frazil.store.reader import ParticleStore

SIDE, COUNT = 256, 36_900  # 262,144 bytes each, 9.7 GB in all
# 16384 images are 4 GiB and 32768 are 8 GiB: in 32 bits their places wrap to those before.
WRITTEN = [0, 5, 8192, 16_383, 16_384, 16_389, 32_768, 32_773, COUNT - 1]
CHOSEN = [36_899, 5, 32_773, 16_389, 32_768, 16_384, 0]


def noise(count: int) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.standard_normal((count, SIDE, SIDE)).astype(np.float32)


def sparse_stack(folder: Path) -> dict[int, np.ndarray]:
    """Write large.mrcs and its large.cs of COUNT rows; return the images that are not zero."""
    images = dict(zip(WRITTEN, noise(len(WRITTEN)), strict=True))
    with StackWriter(folder / "large.mrcs", (SIDE, SIDE), 1, 1.5) as writer:
        writer.write(np.zeros((1, SIDE, SIDE), np.float32))
    with (folder / "large.mrcs").open("r+b") as file:
        file.seek(8)
        file.write(COUNT.to_bytes(4, "little"))
        for index, image in images.items():
            file.seek(HEADER_BYTES + index * SIDE**2 * 4)
            file.write(image.tobytes())
    array = np.zeros(COUNT, [("uid", "<u8"), ("blob/path", "S10"), ("blob/idx", "<u4")])
    array["uid"], array["blob/path"] = np.arange(COUNT), b"large.mrcs"
    array["blob/idx"] = np.arange(COUNT)
    write_cs(folder / "large.cs", array)
    return images


def test_mistake_01_images_past_4_and_8_gib_are_packed_as_those_of_a_small_stack(
    frazil: Callable[..., int], tmp_path: Path
) -> None:
    images = sparse_stack(tmp_path)
    assert (tmp_path / "large.mrcs").stat().st_size > 9 << 30
    with StackWriter(tmp_path / "small.mrcs", (SIDE, SIDE), len(CHOSEN), 1.5) as writer:
        writer.write(np.stack([images[index] for index in sorted(CHOSEN)]))
    write_pickle(tmp_path / "ind.pkl", np.array(CHOSEN))
    flags = ["-D", "32", "--max-threads", "2"]
    assert frazil("preprocess large.cs --ind ind.pkl -o large.frz", *flags) == 0
    assert frazil("preprocess small.mrcs -o small.frz", *flags) == 0
    large, small = (ParticleStore.open(tmp_path / name) for name in ("large.frz", "small.frz"))
    assert sorted(large.rows["index"]) == sorted(CHOSEN)
    expected = small.images(np.searchsorted(np.sort(CHOSEN), large.rows["index"]))
    torch.testing.assert_close(large.images(np.arange(len(CHOSEN))), expected, rtol=0, atol=0)
    # Positive control: where an index that wrapped would lead, another image lies.
    wrapped = {32_773: 5, 16_389: 5, 32_768: 0, 16_384: 0}
    place = {int(index): row for row, index in enumerate(large.rows["index"])}
    for index, other in wrapped.items():
        pair = large.images(np.array([place[index], place[other]]))
        assert not torch.allclose(pair[0], pair[1])


def test_mistake_01_an_index_past_4_gib_of_images_that_are_not_there_is_refused(
    frazil: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse_stack(tmp_path)
    with (tmp_path / "large.mrcs").open("r+b") as file:
        file.truncate(HEADER_BYTES + 32_769 * SIDE**2 * 4)
    write_pickle(tmp_path / "ind.pkl", np.array([0, 32_773]))
    assert frazil("preprocess large.cs --ind ind.pkl -o large.frz") == 2
    said = capsys.readouterr().err
    assert "wants image 32773 (0-based)" in said and "32769 of 36900 images are whole" in said
    write_pickle(tmp_path / "ind.pkl", np.array([0, 32_768]))
    assert frazil("preprocess large.cs --ind ind.pkl -D 32 -o large.frz") == 0
