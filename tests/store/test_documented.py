"""The example of docs/store.md reads a store, and its tables name what is there."""

import re
from pathlib import Path

import numpy as np
import pytest

from frazil.geometry.packing import to_real_space
from frazil.io.particles import PARTICLE_DTYPE
from frazil.store.manifest import Manifest
from tests.store.made import make_store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "store.md").read_text("utf-8")


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_example_reads_the_coefficients_and_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    store = make_store(tmp_path, 12, 36, precision=precision)
    store.path.rename(tmp_path / "particles.frz")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(compile(example, "docs/store.md", "exec"), names)
    moved = type(store).open(tmp_path / "particles.frz")
    wanted = moved.images(np.array([7]))
    assert np.allclose(names["coefficients"], wanted[0].numpy(), rtol=1e-6, atol=0)
    real = to_real_space(wanted, moved.disc)[0].numpy()
    assert np.abs(names["image"] - real).max() < 1e-5 * np.abs(real).max()


def test_every_field_of_a_particle_is_described() -> None:
    for name in PARTICLE_DTYPE.names or ():
        assert f"`{name}`" in PAGE, name


def test_every_field_of_the_manifest_that_is_named_is_there() -> None:
    table = PAGE[PAGE.index("Fields of `manifest.json`") : PAGE.index("## Reading")]
    named = re.findall(
        r"`(\w+)`",
        "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")),
    )
    assert len(named) > 10 and set(named) <= set(Manifest.__struct_fields__)
