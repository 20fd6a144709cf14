"""Stacks are found where users have them, and never mixed up; what is missing is said in full."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frazil.errors import InputError, MissingFileError
from frazil.io.images import open_images, open_particles
from frazil.io.mrc import StackWriter
from frazil.io.paths import Places, PlaceSettings, resolve_stacks
from frazil.io.projects import project_folders
from frazil.io.star import write_star


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def found(name: str, file: Path, places: Places | None = None, *others: str) -> str | None:
    """Return what is found for a name of a table that names `others`, too; None for nothing."""
    path = resolve_stacks([name, *others], file, places or Places())[0]
    assert Path(path).is_absolute()
    return path if Path(path).is_file() else None


def star_of(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_star(path, {"": {"_rlnImageName": list(names)}})
    return path


def stack(path: Path, value: float = 0.0, count: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with StackWriter(path, (4, 4), count, 1.0) as writer:
        writer.write([[[value] * 4] * 4] * count)
    return path


def test_places_are_tried_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cwd, data, project = tmp_path / "cwd", tmp_path / "data", tmp_path / "project"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    (tmp_path / "target").mkdir()
    touch(tmp_path / "target/p.star")
    touch(project / "default_pipeline.star")
    file = project / "meta/p.star"
    file.parent.mkdir()
    file.symlink_to(tmp_path / "target/p.star")
    places = Places(data, (("Extract", str(tmp_path / "new")), ("Extract/job1", "/nowhere")))
    order = [
        tmp_path / "new/job1/a.mrcs",
        data / "Extract/job1/a.mrcs",
        data / "job1/a.mrcs",
        data / "a.mrcs",
        project / "meta/Extract/job1/a.mrcs",
        tmp_path / "target/Extract/job1/a.mrcs",
        cwd / "Extract/job1/a.mrcs",
        project / "Extract/job1/a.mrcs",
        project / "meta/a.mrcs",
        tmp_path / "target/a.mrcs",
    ]
    assert found(">./Extract/job1/a.mrcs", file, places) is None
    for path in reversed(order):  # each is made after, and so must win over, the ones below it
        touch(path)
        assert found(">./Extract/job1/a.mrcs", file, places) == str(path)


def test_an_absolute_name_is_taken_as_it_is_unless_the_user_says_more(tmp_path: Path) -> None:
    name, file = str(touch(tmp_path / "old/J1/a.mrcs")), tmp_path / "p.star"
    assert found(name, file) == name
    there = touch(tmp_path / "data/J1/a.mrcs")
    assert found(name, file, Places(tmp_path / "data")) == str(there)
    mapped = Places(maps=((str(tmp_path / "old"), str(tmp_path / "data")),))
    assert found(name, file, mapped) == str(there)
    within = Places(maps=((str(tmp_path / "ol"), str(tmp_path / "data")),))
    assert found(name, file, within) == name  # "ol" is no folder of that name


def test_a_map_is_old_equals_new(tmp_path: Path) -> None:
    settings = PlaceSettings(datadir="d", maps=("/a=/b=c", "x/=y"))
    assert settings.places() == Places(Path("d"), (("/a", "/b=c"), ("x/", "y")))
    for wrong in ("/a", "/a=", "=/b"):
        with pytest.raises(InputError, match=f"--map {wrong}: OLD=NEW is wanted"):
            PlaceSettings(maps=(wrong,)).places()


@pytest.mark.parametrize(
    ("mark", "file", "folder"),
    [
        ("default_pipeline.star", "a/b/p.star", "."),
        (".gui_projectdir", "a/b/p.star", "."),
        ("Extract/job002/s.mrcs", "Select/p.star", "."),
        ("unmarked", "Refine3D/job010/run_data.star", "."),
        ("project.json", "J5/p.cs", "."),
        ("cs.lock", "deep/er/p.cs", "."),
        ("any/job.json", "any/p.cs", "."),
        ("unmarked", "J12/extract/p.cs", "."),
        ("unmarked", "exports/groups/J5_particles/p.cs", "exports/groups/J5_particles"),
        ("unmarked", "exports/jobs/P1_J5/J5_particles/p.cs", "exports/jobs/P1_J5"),
        ("unmarked", "exports/groups/J5_particles/p.cs", "."),
    ],
)
def test_the_project_is_found_by_walking_up(
    tmp_path: Path, mark: str, file: str, folder: str
) -> None:
    touch(tmp_path / "project" / mark)
    table = touch(tmp_path / "project" / file)
    assert (tmp_path / "project" / folder) in project_folders(table)
    there = touch(tmp_path / "project" / folder / "S/T/a.mrcs")
    assert found("S/T/a.mrcs", table) == str(there)
    elsewhere = touch(tmp_path / "elsewhere/deep/p.star")
    assert project_folders(elsewhere) == []
    assert found("S/T/a.mrcs", elsewhere) is None


def test_a_table_that_is_a_link_is_of_the_project_it_links_to(tmp_path: Path) -> None:
    table = touch(tmp_path / "project/J3/p.cs")
    there = touch(tmp_path / "project/J1/a.mrcs")
    link = tmp_path / "mine/p.cs"
    link.parent.mkdir()
    link.symlink_to(table)
    assert found("J1/a.mrcs", link) == str(there)


def test_the_number_before_an_imported_file_is_taken_off(tmp_path: Path) -> None:
    name, file = ">J1/imported/000123456789_a.mrcs", tmp_path / "meta/p.cs"
    there = touch(tmp_path / "data/a.mrcs")
    assert found(name, file, Places(tmp_path / "data")) == str(there)
    twin = "J1/imported/000123456788_a.mrcs"
    assert found(name, file, Places(tmp_path / "data"), twin) is None  # which of them is it?
    named = touch(tmp_path / "data/000123456789_a.mrcs")
    assert found(name, file, Places(tmp_path / "data"), twin) == str(named)
    touch(tmp_path / "data/000001_b.mrcs")  # RELION counts with fewer digits
    assert found("000001_b.mrcs", file, Places(tmp_path / "data"))
    touch(tmp_path / "data/c.mrcs")
    assert found("000001_c.mrcs", file, Places(tmp_path / "data")) is None


def test_same_basenames_in_two_folders_are_never_mixed_up(tmp_path: Path) -> None:
    file, data = tmp_path / "p.star", Places(tmp_path / "data")
    one = touch(tmp_path / "data/a.mrcs")
    assert resolve_stacks([">J1/a.mrcs", "./J1/a.mrcs"], file, data) == (str(one), str(one))
    for others in (["J2/a.mrcs"], ["a.mrcs"], ["/x/J1/a.mrcs"]):
        assert found("J1/a.mrcs", file, data, *others) is None
    there = [touch(tmp_path / "data" / job / "a.mrcs") for job in ("J1", "J2")]
    names = ["J1/a.mrcs", "J2/a.mrcs"]
    assert resolve_stacks(names, file, data) == tuple(map(str, there))
    deeper = [f"x/{name}" for name in names]  # their last folders still tell them apart
    assert resolve_stacks(deeper, file, data) == tuple(map(str, there))
    maps = Places(maps=(("J1", str(tmp_path / "data")), ("J2", str(tmp_path / "data"))))
    with pytest.raises(InputError, match=r"J1/a\.mrcs and J2/a\.mrcs would both be read from"):
        resolve_stacks(names, file, maps)


def test_particles_of_two_folders_with_the_same_basenames_are_the_right_ones(
    tmp_path: Path,
) -> None:
    star = star_of(tmp_path / "p.star", "1@J2/a.mrcs", "1@J1/a.mrcs")
    stack(tmp_path / "data/a.mrcs", 99)
    with pytest.raises(MissingFileError, match="stacks have the same names"):
        open_images(open_particles(star, Places(tmp_path / "data")))
    for job in (1, 2):
        stack(tmp_path / f"data/J{job}/a.mrcs", job)
    with open_images(open_particles(star, Places(tmp_path / "data"))) as images:
        assert images.read([0, 1])[:, 0, 0].tolist() == [2, 1]


def test_a_name_with_dots_goes_through_links_as_the_system_does(tmp_path: Path) -> None:
    touch(tmp_path / "far/away/p.star")
    there = touch(tmp_path / "far/a.mrcs")
    touch(tmp_path / "a.mrcs")  # where "link/../a.mrcs" would be, were "link" no link
    (tmp_path / "link").symlink_to(tmp_path / "far/away")
    assert there.samefile(found("../a.mrcs", tmp_path / "link/p.star") or "")


def test_a_missing_stack_is_told_in_full(tmp_path: Path) -> None:
    names = [f"1@S/{number}.mrcs" for number in range(2000)]
    for number in range(2000):
        if number % 400 != 3:
            stack(tmp_path / f"S/{number}.mrcs")
    star = star_of(tmp_path / "p.star", *names)
    with pytest.raises(MissingFileError) as caught:
        open_images(open_particles(star, Places(tmp_path, (("S", "/gone"),))))
    message = str(caught.value)
    assert "\n" not in message
    assert f"{star}: 1,995 of 2,000 stacks found; missing: row 3 (0-based) S/3.mrcs; " in message
    assert "row 403 (0-based) S/403.mrcs; row 803 (0-based) S/803.mrcs, ..." in message
    for tried in ("/gone/3.mrcs", tmp_path / "S/3.mrcs", tmp_path / "3.mrcs"):
        assert str(tried) in message
    assert message.endswith("give --datadir FOLDER or --map OLD=NEW")


def test_a_broken_link_is_named_with_its_target_which_may_be_mapped(tmp_path: Path) -> None:
    link = tmp_path / "J1/imported/a.mrcs"
    link.parent.mkdir(parents=True)
    link.symlink_to("/gone/stacks/a.mrcs")
    star = star_of(tmp_path / "p.star", "1@J1/imported/a.mrcs")
    with pytest.raises(
        MissingFileError, match=r"row 0 .*a\.mrcs \(a link to /gone/stacks/a\.mrcs, which is not"
    ):
        open_images(open_particles(star))
    stack(tmp_path / "here/stacks/a.mrcs", 5)
    places = Places(maps=(("/gone", str(tmp_path / "here")),))
    with open_images(open_particles(star, places)) as images:
        assert images.read([0])[0, 0, 0] == 5


def test_the_disk_is_asked_once_a_file_whatever_the_number_of_particles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def counted(ask: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).startswith(str(tmp_path / "data")):
                asked[f"{ask.__name__} {Path(path).suffix}"] += 1
            return ask(path, *args, **kwargs)

        return wrapper

    for number in range(40):
        stack(tmp_path / f"data/S/{number}.mrcs", count=10)
    names = [f"{image + 1}@S/{number}.mrcs" for image in range(10) for number in range(40)]
    star = star_of(tmp_path / "meta/p.star", *names)
    for name in ("stat", "lstat", "open"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    table = open_particles(star, Places(tmp_path / "data"))
    assert asked["stat .mrcs"] == 40 + 1  # and one for the box
    with open_images(table) as images:
        assert len(images) == 400
        before = asked.copy()
        images.read(range(400))
    assert before["open .mrcs"] == 40 + 1 and before["lstat .mrcs"] == 0
    assert asked["stat "] <= 2 and asked["stat .mrcs"] == 41


def test_names_in_folders_that_are_not_there_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    stat = os.stat

    def counted(path: Any, **kwargs: Any) -> os.stat_result:
        asked.append(str(path))
        return stat(path, **kwargs)

    touch(tmp_path / "default_pipeline.star")
    names = [f"Extract/job1/{number}.mrcs" for number in range(100)]
    for name in names:
        touch(tmp_path / name)
    monkeypatch.setattr(os, "stat", counted)
    assert resolve_stacks(names, tmp_path / "Refine3D/p.star", Places(tmp_path / "none")) == tuple(
        str(tmp_path / name) for name in names
    )
    assert sum(path.endswith(".mrcs") for path in asked) == 100
