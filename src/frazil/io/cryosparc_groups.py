"""Which .cs files make up one set of particles: a job's folder, a .csg, or a .cs with passthroughs.

Owns: the .csg format, the names that jobs give their files, and the choice of iteration and class.
Does not own: the tables themselves (`cryosparc_files`), nor joining them (`cryosparc_join`).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from frazil.errors import InputError, MissingFileError

_JOB = re.compile(r"(?:^|_)(J\d+)(?=_)")
_CLASS = re.compile(r"class_(\d+)")
_ITERATION = re.compile(r"(J\d+(?:_class_\d+)?)_(\d{3,5}|final)(?=_particles)")
# What jobs call the particles that they set aside.
_ASIDE = re.compile(r"excluded|unused|rejected|remainder|uncategorized|incomplete|duplicates")
_PASSTHROUGH = "passthrough"
_KEY = re.compile(r"( *)([\w.\-/]+):(?: +(.*))?")
_MAX_CSG_BYTES = 1 << 20


@dataclass(frozen=True)
class CsFiles:
    """The files of one set of particles.

    Attributes
    ----------
    main : the file whose rows are the particles.
    others : files that fields missing there are taken from, joined on uid.
    owners : the file that a .csg names for a result, i.e. for the fields "result/...".
    items : how many rows a .csg says that a file has.
    chosen_class : the class that was chosen by the name of the file, else None.
    lines : how the files were found, for the log.
    """

    main: Path
    others: tuple[Path, ...] = ()
    owners: tuple[tuple[str, Path], ...] = ()
    items: tuple[tuple[Path, int], ...] = ()
    chosen_class: int | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class CsResult:
    """One result of a .csg: fields "name/..." are in `metafile`, which has `items` rows."""

    name: str
    metafile: str
    items: int | None


@dataclass(frozen=True)
class CsGroup:
    """A .csg file: the kind of its items ("particle") and its results."""

    path: Path
    name: str
    kind: str
    results: tuple[CsResult, ...]


def is_job_folder(path: Path) -> bool:
    """Return whether a folder holds .cs or .csg files, as cryoSPARC's jobs and exports do."""
    return path.is_dir() and any(p.suffix in (".cs", ".csg") for p in path.iterdir())


def find_cs_files(path: Path, class_index: int | None = None) -> CsFiles:
    """Return the files that belong to a job folder, a .csg or a .cs.

    A folder of several iterations gives the last one. Several classes, or several results, are
    refused with their names; `class_index` chooses a class.

    Raises
    ------
    MissingFileError : a file is not there.
    InputError : no particles, or several results to choose from.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, class_index)
    if path.suffix == ".csg":
        return _of_group(read_csg(path), class_index)
    return CsFiles(path, tuple(passthrough_files(path)))


def read_csg(path: Path) -> CsGroup:
    """Return what a .csg says: a small subset of YAML, nested keys with plain or quoted values.

    Raises
    ------
    MissingFileError, InputError : not there, or no .csg; names the line.
    """
    try:
        if path.stat().st_size > _MAX_CSG_BYTES:
            raise InputError(f"{path}: too large for a .csg; give the .cs file itself")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a .csg file (it is no text); give the .cs file") from error
    values = _nested_values(lines, path)
    names = dict.fromkeys(keys[1] for keys in values if len(keys) == 3 and keys[0] == "results")
    results = []
    for name in names:
        metafile = _scalar(values.get(("results", name, "metafile"), ""), path)
        items = values.get(("results", name, "num_items"), "")
        if metafile:
            count = int(items) if items.isdecimal() and len(items) < 19 else None
            results.append(CsResult(name, metafile, count))
    kind, title = (_scalar(values.get(("group", key), ""), path) for key in ("type", "name"))
    return CsGroup(path, title or path.stem, kind, tuple(results))


def _nested_values(lines: Iterable[str], path: Path) -> dict[tuple[str, ...], str]:
    """Return the raw value of every nested key; values may go on in deeper lines."""
    values: dict[tuple[str, ...], str] = {}
    keys: list[tuple[int, str]] = []  # (indent, key) of the open levels
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#") or line in ("---", "..."):
            continue
        indent = len(line) - len(line.lstrip(" "))
        where = tuple(key for _, key in keys)
        if keys and indent > keys[-1][0] and values[where]:
            values[where] += f" {text}"
            continue
        found = _KEY.fullmatch(line.rstrip())
        if found is None:
            raise InputError(
                f"{path}: line {number} is not 'key: value' ({text[:40]}); export again"
            )
        while keys and keys[-1][0] >= indent:
            keys.pop()
        keys.append((indent, found[2]))
        where = tuple(key for _, key in keys)
        if where in values:
            raise InputError(f"{path}: line {number} repeats the key {found[2]}; export it again")
        values[where] = (found[3] or "").strip()
    return values


def _scalar(text: str, path: Path) -> str:
    """Return the value of a plain or quoted scalar; null is empty."""
    try:
        if text.startswith("'"):
            if len(text) < 2 or not text.endswith("'"):
                raise ValueError
            return text[1:-1].replace("''", "'")
        if text.startswith('"'):
            return str(json.loads(text))
        if text[:1] in ("&", "*", "!", "|", ">", "[", "{", "@", "`", "%"):
            raise ValueError
    except ValueError as error:
        raise InputError(f"{path}: cannot read the value {text[:60]}; put it in quotes") from error
    return "" if text in ("null", "~") else text


def _of_group(group: CsGroup, class_index: int | None) -> CsFiles:
    """Return the files of a .csg: the first one that is no passthrough has the rows."""
    path = group.path
    if group.kind not in ("", "particle"):
        raise InputError(
            f"{path}: holds items of type {group.kind}, no particles; give another .csg"
        )
    if not group.results:
        raise InputError(f"{path}: names no metafile under results:; give the .cs file itself")
    owners = tuple((result.name, _metafile(path, result)) for result in group.results)
    files = list(dict.fromkeys(file for _, file in owners))
    main = next((file for file in files if _PASSTHROUGH not in file.name), files[0])
    items = {
        file: result.items
        for (_, file), result in zip(owners, group.results, strict=True)
        if result.items is not None
    }
    lines = [f"{path}: group {group.name}, {len(owners)} results in {len(files)} files"]
    lines += [
        f"{path}: {', '.join(name for name, f in owners if f == file)}: {file.name}"
        + (f", {items[file]} items" if file in items else "")
        for file in files
    ]
    number = _class_of(group.name)
    return CsFiles(
        main,
        tuple(file for file in files if file != main),
        owners,
        tuple(items.items()),
        class_index if class_index == number else None,
        tuple(lines),
    )


def _metafile(path: Path, result: CsResult) -> Path:
    """Return the file of a result: ">" means beside the .csg, else relative to the project."""
    name = result.metafile.lstrip(">")
    if result.metafile.startswith(">"):
        places = [path.parent / name]
    else:
        places = [path.parent.parent / name, path.parent / name, path.parent / Path(name).name]
    for place in places:
        if place.is_file():
            return place
    raise MissingFileError(
        f"{path}: result {result.name} is in {name}, which is not there; tried "
        f"{', '.join(map(str, places))}; put it beside the .csg"
    )


def _of_folder(folder: Path, class_index: int | None) -> CsFiles:
    """Return the files of a job's folder, by its .csg files or else by the names of its .cs."""
    groups = [read_csg(path) for path in sorted(folder.glob("*.csg"))]
    groups = [g for g in groups if g.kind == "particle" and g.results]
    groups = [g for g in groups if not _ASIDE.search(g.path.name)]
    if groups:
        by_name = {g.path.name: g for g in groups}
        chosen = _one_of(folder, list(by_name), class_index)
        return _of_group(by_name[chosen], class_index)
    latest = _latest_iterations(path.name for path in folder.glob("*.cs"))
    if not latest:
        raise InputError(f"{folder}: no particles (*.cs, *.csg) in it; give a job's folder or file")
    name = _one_of(folder, list(latest), class_index)
    path, older = folder / name, latest[name]
    lines = [f"{folder}: {name}" + (f", the last of {older + 1} iterations" if older else "")]
    number = _class_of(name)
    chosen_class = class_index if class_index is not None and class_index == number else None
    return CsFiles(
        path,
        tuple(passthrough_files(path)),
        chosen_class=chosen_class,
        lines=tuple(lines),
    )


def _one_of(folder: Path, names: list[str], class_index: int | None) -> str:
    """Return the one result of a folder, or that of a class; refuse several."""
    if len(names) > 1 and class_index is not None:
        of_class = [name for name in names if _class_of(name) == class_index]
        names = of_class or names
    if len(names) > 1:
        classes = [name for name in names if _class_of(name) is not None]
        remedy = "give --class N or one of these files" if classes else "give one of these files"
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise InputError(f"{folder}: {len(names)} sets of particles ({shown}); {remedy}")
    return names[0]


def _latest_iterations(names: Iterable[str]) -> dict[str, int]:
    """Return, of each series of particle files, the last iteration and how many came before."""
    series: dict[str, list[tuple[float, str]]] = {}
    for name in sorted(names):
        known = "particles" in name or re.search(r"(^|_)split_\d+", name)
        if not known or _PASSTHROUGH in name or _ASIDE.search(name):
            continue
        found = _ITERATION.search(name)
        number = -1.0 if found is None else float(found[2].replace("final", "inf"))
        series.setdefault(_ITERATION.sub(r"\1", name), []).append((number, name))
    return {max(files)[1]: len(files) - 1 for files in series.values()}


def passthrough_files(path: Path) -> list[Path]:
    """Return the passthrough files beside a .cs of the same job, class and selection."""
    job, number = _JOB.search(path.name), _class_of(path.name)
    aside = bool(_ASIDE.search(path.name))
    found = []
    for file in sorted(path.parent.glob(f"*{_PASSTHROUGH}_particles*.cs")):
        its_job, its_number = _JOB.search(file.name), _class_of(file.name)
        same_job = job is None or (its_job is not None and its_job[1] == job[1])
        same_class = number is None or its_number is None or its_number == number
        same_side = aside == bool(_ASIDE.search(file.name))
        if file.name != path.name and same_job and same_class and same_side:
            found.append(file)
    of_class = [file for file in found if number is not None and _class_of(file.name) == number]
    return [f for f in found if f in of_class or "all_classes" not in f.name] if of_class else found


def _class_of(name: str) -> int | None:
    """Return the class that a file's name tells, None without one."""
    found = _CLASS.search(name)
    return None if found is None else int(found[1])
