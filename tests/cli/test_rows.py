"""Every stage says how many rows went in, were dropped and why, and came out."""

import json
from pathlib import Path

import numpy as np
import pytest

from frazil.cli.main import main
from frazil.io.images import open_particles
from frazil.io.pickles import write_pickle
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.store.reader import ParticleStore
from tests.store.made import make_images, with_metadata, write_stack


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store of 60 rows, of which one is non-finite, one constant, one far; --drop-bad."""
    monkeypatch.chdir(tmp_path)
    images = make_images(60, 16)
    images[3, 8, 8], images[7], images[9] = np.nan, 1.0, 1000 * images[9]
    table = with_metadata(open_particles(write_stack(tmp_path / "p.mrcs", images)))
    settings = PackSettings(max_threads=1, drop_bad=True)
    return pack(table, tmp_path / "X.frz", settings).path


def said(capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    """Run a command and return its lines on rows."""
    capsys.readouterr()
    assert main(line.split()) == 0, line
    return [x.strip() for x in capsys.readouterr().out.splitlines() if x.startswith("rows: ")]


def test_engines_account_for_selected_flagged_and_used_rows(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pickle(Path("ind.pkl"), np.arange(40))
    why = "--ind 20, non-finite 1, --drop-bad 2"
    used = f"rows: 60 in, 23 dropped ({why}), 37 used"
    assert said(capsys, "train_pca X.frz --ind ind.pkl --zdim 1 -o pca") == [used]
    line = "train_vae X.frz --ind ind.pkl --zdim 1 -n 1 --enc-dim 8 --dec-dim 8 --no-analysis -o v"
    assert said(capsys, line) == [used]
    first = "rows: 60 in, 53 dropped (--ind 20, --first 30, non-finite 1, --drop-bad 2), 7 used"
    line = "backproject_voxel X.frz --ind ind.pkl --first 10 -o map"
    assert said(capsys, line) == [first]


def test_packing_and_info_account_for_the_input_and_the_flagged(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pickle(Path("ind.pkl"), np.arange(40))
    rows = said(capsys, "preprocess p.mrcs --ind ind.pkl --drop-bad -o Y.frz")
    packed = "rows: 60 in, 20 dropped (--ind 20), 40 to pack"
    assert rows == [packed, "rows: 40 in, 3 dropped (non-finite 1, --drop-bad 2), 37 usable"]
    assert main(["info", "Y.frz", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["rows"] == 60 and facts["dropped"] == {"--ind": 20}
    assert facts["used"] == 37 and facts["unused"] == {"non-finite": 1, "--drop-bad": 2}
    assert facts["flagged"]["outlier"] == 1


def test_small_stages_account_for_their_rows(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = "rows: 60 in, 45 dropped (not selected 45), 15 selected"
    assert said(capsys, "select_random 60 -n 15 -o some.pkl") == [chosen]
    cropped = "rows: 60 in, 45 dropped (--ind 45), 15 out"
    assert said(capsys, "downsample p.mrcs -D 8 --ind some.pkl -o small.mrcs") == [cropped]


def test_drop_bad_is_refused_where_every_row_is_written(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preprocess", "p.mrcs", "--drop-bad", "-o", "q.mrcs"]) == 2
    assert "--drop-bad: is for a store; give -o X.frz" in capsys.readouterr().err
    assert not list(Path().glob("q*"))


def test_a_manifest_whose_rows_do_not_add_up_is_refused(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["rows_in"] += 1
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OSError, match="contradict each other"):
        ParticleStore.open(store)
