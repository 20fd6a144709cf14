"""cryoDRGN's .ft.mrcs stacks: written exactly, read back into the same store, never half there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from frazil.errors import InputError, OutputExistsError
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import read_header
from frazil.preprocess import fourier_stacks
from frazil.preprocess.fourier_stacks import write_fourier_stacks
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.preprocess.steps import hartley_images, plan_transform
from tests.store.made import all_files, make_images, make_particles, write_stack

BOX, SMALL, COUNT = 24, 16, 11


def settings(**changes: object) -> PackSettings:
    return PackSettings(**{"max_threads": 2, "precision": "float32", **changes})


def read_all(listing: Path) -> np.ndarray:
    table = open_particles(listing)
    with open_images(table) as images:
        return images.read(np.arange(len(table)))


@pytest.mark.parametrize("box_px", [None, SMALL])
@pytest.mark.parametrize("name", ["out.mrcs", "out.txt"])
def test_stacks_hold_the_hartley_images_of_the_steps(
    tmp_path: Path, box_px: int | None, name: str
) -> None:
    table = make_particles(tmp_path, COUNT, BOX)
    listing = write_fourier_stacks(table, tmp_path / "d" / name, settings(box_px=box_px), chunk=4)
    names = ["out.0.ft.mrcs", "out.1.ft.mrcs", "out.2.ft.mrcs"]
    assert listing.name == "out.ft.txt" and listing.read_text().split() == names
    assert sorted(path.name for path in listing.parent.iterdir()) == [*names, "out.ft.txt"]
    transform = plan_transform(settings(box_px=box_px), BOX, "real")
    wanted = hartley_images(torch.from_numpy(make_images(COUNT, BOX)), transform).numpy()
    assert np.array_equal(read_all(listing), wanted)
    header = read_header(listing.parent / names[2])
    assert (header.nx, header.ny, header.nz) == ((box_px or BOX) + 1, (box_px or BOX) + 1, 3)
    assert np.isclose(header.pixel_size_ang, 1.5 * BOX / (box_px or BOX))


def test_a_store_of_the_stacks_is_the_store_of_the_images(tmp_path: Path) -> None:
    table = make_particles(tmp_path, COUNT, BOX)
    listing = write_fourier_stacks(table, tmp_path / "out.mrcs", settings(box_px=SMALL), chunk=4)
    direct = pack(table, tmp_path / "1.frz", settings(box_px=SMALL))
    through = pack(open_particles(listing), tmp_path / "2.frz", settings())
    rows = np.arange(COUNT)
    difference = (direct.images(rows) - through.images(rows)).abs().max()
    assert difference <= 2e-6 * direct.rms()
    # What was done before is not done again, and the manifest says that it was not.
    assert through.manifest.processing.sign == 1 and through.manifest.processing.window is None
    assert np.isclose(direct.rms(), through.rms(), rtol=1e-6)
    assert through.pixel_size_ang == direct.pixel_size_ang


def test_fourier_images_are_not_cropped_or_transformed_again(tmp_path: Path) -> None:
    listing = write_fourier_stacks(
        make_particles(tmp_path, 3, BOX), tmp_path / "out.mrcs", settings(), chunk=4
    )
    with pytest.raises(InputError, match="Fourier images of 24 px; leave -D out"):
        pack(open_particles(listing), tmp_path / "X.frz", settings(box_px=SMALL))
    with pytest.raises(InputError, match="holds Fourier images already"):
        write_fourier_stacks(open_particles(listing), tmp_path / "again.mrcs", settings(), chunk=4)


def stop_in_stack(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fourier_stacks.StackWriter

    def writer(path: Path, *rest: object) -> object:
        if f".{number}.ft." in path.name:
            raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(fourier_stacks, "StackWriter", writer)


def test_an_interrupted_run_goes_on_after_the_whole_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_particles(tmp_path, COUNT, BOX)
    wanted = read_all(write_fourier_stacks(table, tmp_path / "w" / "X.txt", settings(), 4))
    out = tmp_path / "d" / "X.txt"
    with monkeypatch.context() as patch:
        stop_in_stack(1, patch)
        with pytest.raises(KeyboardInterrupt):
            write_fourier_stacks(table, out, settings(), 4)
    assert not (out.parent / "X.ft.txt").exists()
    (out.parent / ".X.1.ft.mrcs.0123abcd.mrcs").write_bytes(b"what a kill left")
    kept = (out.parent / "X.0.ft.mrcs").stat().st_ino
    with pytest.raises(OutputExistsError, match=r"X\.0\.ft\.mrcs: exists already \(other settings"):
        write_fourier_stacks(table, out, settings(window=False), 4)
    assert np.array_equal(read_all(write_fourier_stacks(table, out, settings(), 4)), wanted)
    assert (out.parent / "X.0.ft.mrcs").stat().st_ino == kept
    assert len(all_files(out.parent)) == 4


def test_complete_stacks_are_replaced_only_when_asked_and_others_never(tmp_path: Path) -> None:
    table, out = make_particles(tmp_path, COUNT, BOX), tmp_path / "d" / "X.txt"
    listing = write_fourier_stacks(table, out, settings(), 4)
    neighbour = write_fourier_stacks(table, tmp_path / "d" / "X.b.txt", settings(), 4)
    before = read_all(neighbour)
    with pytest.raises(OutputExistsError, match=r"X\.ft\.txt: exists already"):
        write_fourier_stacks(table, out, settings(), 4)
    assert neighbour.name == "X.b.ft.txt"
    write_fourier_stacks(table, out, settings(overwrite=True, window=False), 6)
    assert listing.read_text().split() == ["X.0.ft.mrcs", "X.1.ft.mrcs"]
    assert not (tmp_path / "d" / "X.2.ft.mrcs").exists()
    assert np.array_equal(read_all(neighbour), before)
    listing.unlink()  # stacks of somebody, without their list
    with pytest.raises(OutputExistsError, match=r"X\.0\.ft\.mrcs: exists already"):
        write_fourier_stacks(table, out, settings(), 4)


def test_nonfinite_images_are_zero_and_said_or_refused(tmp_path: Path) -> None:
    images = make_images(COUNT, BOX)
    images[3, 1, 1], images[9, 4, 4] = np.nan, np.inf
    table = open_particles(write_stack(tmp_path / "particles.mrcs", images))
    said: list[str] = []
    listing = write_fourier_stacks(table, tmp_path / "X.txt", settings(), 4, said.append)
    found = read_all(listing)
    assert np.isfinite(found).all()
    assert [row for row in range(COUNT) if not found[row].any()] == [3, 9]
    assert said == ["2 images with non-finite pixels are zero: rows 3, 9 (0-based)"]
    with pytest.raises(InputError, match=r"row 3 \(0-based\) has non-finite pixels"):
        write_fourier_stacks(table, tmp_path / "Y.txt", settings(strict=True), 4)
