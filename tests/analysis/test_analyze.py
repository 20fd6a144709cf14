"""A whole analysis of a small run, and its report."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from frazil.analysis import analyze
from frazil.analysis.analyze import analyze_run
from frazil.analysis.latents import load_latents
from frazil.analysis.report import Section, facts, page, paths, table, thumbnail
from frazil.analysis.settings import AnalyzeSettings, VolumeSettings
from frazil.errors import CorruptDataError, MissingFileError
from frazil.io.images import open_particles
from frazil.io.mrc import read_volume
from frazil.preprocess.pipeline import pack
from frazil.preprocess.settings import PackSettings
from frazil.runs.folder import Run
from tests.analysis.tiny_run import PARTICLES, ROWS, ZDIM, make_run

QUICK = AnalyzeSettings(clusters=3, components=2, per_component=3, umap=False)
HOSTILE = "<script>alert('x')</script> & \"quoted\""


class Seen(HTMLParser):
    """Collects tags, addresses and text of a page, and checks that tags close."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished analysis of a run with a hostile command, and what was said."""
    path = make_run(tmp_path_factory.mktemp("analysed"), name="a & b <i>")
    config = json.loads((path / "config.json").read_text())
    config["command"] = HOSTILE
    (path / "config.json").write_text(json.dumps(config))
    said: list[str] = []
    report = analyze_run(path, None, QUICK, VolumeSettings(), None, said.append)
    assert report == path / "analyze.2" / "report.html"
    return report.parent, said


def test_everything_that_is_promised_is_there(analysed: tuple[Path, list[str]]) -> None:
    out, _ = analysed
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    volumes = {f"vol_{i:03d}.mrc" for i in (1, 2, 3)} | {"z_values.txt"}
    expected = {"report.html", "z_pca.png", "learning_curve.png"}
    expected |= {f"kmeans3/{name}" for name in ("labels.npy", "centers.txt", "centers_ind.txt")}
    expected |= {f"{folder}/{name}" for folder in ("kmeans3", "pc1", "pc2") for name in volumes}
    assert found == expected


def test_cluster_files_agree_with_each_other_and_with_the_latents(
    analysed: tuple[Path, list[str]],
) -> None:
    folder = analysed[0] / "kmeans3"
    z = Run.open(analysed[0].parent).latents(2)
    labels = np.load(folder / "labels.npy", allow_pickle=False)
    indices = np.loadtxt(folder / "centers_ind.txt").astype(int)
    assert labels.shape == (len(ROWS),)
    assert labels[indices].tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.loadtxt(folder / "centers.txt"), z[indices], rtol=1e-5)
    # The two groups of latents share no cluster.
    assert not set(labels[:20]) & set(labels[20:])


def test_volumes_have_the_pixel_size_of_the_run(analysed: tuple[Path, list[str]]) -> None:
    volume, pixel_size_ang = read_volume(analysed[0] / "pc1" / "vol_001.mrc")
    assert volume.shape == (16, 16, 16)
    assert pixel_size_ang == pytest.approx(8.0)


def test_the_report_needs_nothing_outside_itself(analysed: tuple[Path, list[str]]) -> None:
    text = (analysed[0] / "report.html").read_text(encoding="utf-8")
    seen = Seen(text)
    assert not seen.open
    assert not seen.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in seen.addresses)
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    anchors = {address[1:] for address in seen.addresses if address.startswith("#")}
    assert anchors == set(re.findall(r'<section id="([^"]+)"', text))


def test_the_report_escapes_names_and_commands(analysed: tuple[Path, list[str]]) -> None:
    text = (analysed[0] / "report.html").read_text(encoding="utf-8")
    seen = Seen(text)
    assert HOSTILE in seen.words
    assert "a & b <i>" in seen.words
    assert "i" not in seen.tags


def test_the_report_shows_counts_identities_and_pictures(
    analysed: tuple[Path, list[str]],
) -> None:
    seen = Seen((analysed[0] / "report.html").read_text(encoding="utf-8"))
    labels = np.load(analysed[0] / "kmeans3" / "labels.npy", allow_pickle=False)
    for number, count in enumerate(np.bincount(labels), start=1):
        assert f"Cluster {number}{count} particles" in seen.words  # the card
        assert f"Cluster {number}{count}{100 * count / len(ROWS):.1f} %" in seen.words  # the table
    shown = re.findall(r"row (\d+)cluster", seen.words)
    assert len(shown) == 24
    assert {int(row) for row in shown} <= set(ROWS.tolist())
    for row in shown:
        assert f"{int(row) + 1:06d}@particles.mrcs" in seen.words
    pictures = [address for address in seen.addresses if address.startswith("data:")]
    # Learning curve, PCA, three clusters, three views of two components, thumbnails.
    assert len(pictures) == 2 + 3 + 2 * 3 + 24


def test_the_same_analysis_gives_the_same_numbers(run_path: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        analyze_run(run_path, 1, QUICK, None, tmp_path / name, lambda line: None)
    for name in ("kmeans3/labels.npy", "kmeans3/vol_002.mrc", "pc2/z_values.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_analysis_leaves_no_volumes_of_the_first(run_path: Path) -> None:
    out = analyze_run(run_path, 1, QUICK, log=lambda line: None).parent
    (out / "pc1" / "vol_mine.mrc").write_bytes(b"kept")
    fewer = AnalyzeSettings(clusters=3, components=1, per_component=2, umap=False)
    analyze_run(run_path, 1, fewer, log=lambda line: None)
    names = sorted(path.name for path in (out / "pc1").iterdir())
    assert names == ["vol_001.mrc", "vol_002.mrc", "vol_mine.mrc", "z_values.txt"]


def test_what_is_skipped_is_not_made(run_path: Path) -> None:
    settings = AnalyzeSettings(clusters=2, volumes=False, umap=False)
    out = analyze_run(run_path, 1, settings, log=lambda line: None).parent
    assert out.name == "analyze.1"
    assert not list(out.rglob("*.mrc"))
    assert not (out / "umap.png").exists()
    assert "Cluster volumes" not in (out / "report.html").read_text(encoding="utf-8")


def test_umap_is_written_in_the_order_of_the_latents(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyze, "umap_embedding", lambda z, seed: z[:, :2].copy())
    settings = AnalyzeSettings(clusters=2, volumes=False)
    out = analyze_run(run_path, 1, settings, log=lambda line: None).parent
    embedding = np.load(out / "umap.npy", allow_pickle=False)
    np.testing.assert_array_equal(embedding, Run.open(run_path).latents(1)[:, :2])
    assert (out / "umap.png").stat().st_size > 1000


def test_more_components_than_dimensions_is_said(run_path: Path) -> None:
    settings = AnalyzeSettings(clusters=2, components=9, per_component=2, umap=False)
    said: list[str] = []
    out = analyze_run(run_path, 2, settings, log=said.append).parent
    assert any(f"only {ZDIM} principal component(s)" in line for line in said)
    assert not (out / f"pc{ZDIM + 1}").exists()


def test_a_lost_store_costs_the_thumbnails_only(run_path: Path) -> None:
    (run_path.parent / "particles.frz").rename(run_path.parent / "elsewhere.frz")
    said: list[str] = []
    report = analyze_run(run_path, 2, QUICK, log=said.append)
    assert any(line.startswith("no particle pictures") for line in said)
    assert "Cluster volumes" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize("change", ["damaged", "other particles"])
def test_a_store_that_changed_costs_the_thumbnails_only(change: str, run_path: Path) -> None:
    store = run_path.parent / "particles.frz"
    if change == "damaged":
        (store / "manifest.json").write_text("{")
    else:
        few = open_particles(run_path.parent / "simulated" / "particles.star").take(np.arange(5))
        shutil.rmtree(store)
        pack(few, store, PackSettings(max_threads=1))
    said: list[str] = []
    report = analyze_run(run_path, 2, QUICK, log=said.append)
    assert any(line.startswith("no particle pictures") for line in said)
    assert "Cluster volumes" in report.read_text(encoding="utf-8")


def test_latents_that_do_not_fit_are_refused(run_path: Path) -> None:
    run = Run.open(run_path)
    z = run.latents(2)
    assert load_latents(run).epoch == 2
    np.save(run.latents_path(2), z[:-1])
    with pytest.raises(CorruptDataError, match=r"rows\.npy"):
        load_latents(run, 2)
    z[7, 1] = np.nan
    np.save(run.latents_path(2), z)
    with pytest.raises(CorruptDataError, match=r"row 7 \(0-based\)"):
        load_latents(run, 2)
    with pytest.raises(MissingFileError):
        load_latents(run, 3)


def test_every_part_of_a_page_escapes_its_text() -> None:
    parts = [
        facts([(HOSTILE, HOSTILE)]),
        table([HOSTILE, "n"], [[HOSTILE, "1"]]),
        paths([(HOSTILE, HOSTILE)]),
        thumbnail(b"", [HOSTILE, HOSTILE]),
    ]
    section = Section("s", HOSTILE, HOSTILE, "".join(parts))
    seen = Seen(page(HOSTILE, HOSTILE, [section, Section("empty", "left out", "", "")]))
    assert "script" not in seen.tags
    assert seen.words.count(HOSTILE) == 2 + 2 + 1 + 2 + 2 + 2 + 2 + 1
    assert "left out" not in seen.words


def test_the_run_has_more_particles_than_were_trained() -> None:
    # Otherwise the test of thumbnails could not see rows taken for indices.
    assert ROWS.min() > 0
    assert len(ROWS) < PARTICLES
