"""Folders of RELION and cryoSPARC projects, found by walking up from a file.

Owns: what marks such a folder. Stacks are named relative to it in both programs. Does not own: the
order in which places are tried (`frazil.io.paths`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

_RELION_MARKS = ("default_pipeline.star", ".gui_projectdir", "Extract", "Import")
_RELION_JOB = re.compile(r"job\d{3,}")
_CRYOSPARC_MARKS = ("project.json", "cs.lock")
_CRYOSPARC_JOB = re.compile(r"J\d+")
_EXPORTS = {"groups", "jobs"}


def project_folders(file: Path) -> list[Path]:
    """Return the folders that names in `file` may be relative to, the likeliest first.

    They are those of exports (.../exports/groups/X and .../exports/jobs/X), then the nearest folder
    above `file` that is a project by its marks, or by a job folder that `file` lies in. A `file`
    that is a link is followed, too.
    """
    found = [folder for start in starts_of(file) for folder in _exports(start)]
    for start in starts_of(file):
        for is_project in (_is_relion, _is_cryosparc):
            nearest = next((f for f in (start, *start.parents) if is_project(f, start)), None)
            found += [] if nearest is None else [nearest]
    return list(dict.fromkeys(found))


def starts_of(file: Path) -> list[Path]:
    """Return the folder of a file, and that of the file that it is a link to."""
    return list(dict.fromkeys([file.absolute().parent, file.resolve().parent]))


def _exports(start: Path) -> Iterator[Path]:
    """Yield X and the project of a folder inside .../exports/groups/X or .../exports/jobs/X."""
    for folder in (start, *start.parents):
        if folder.parent.name in _EXPORTS and folder.parent.parent.name == "exports":
            yield from (folder, folder.parents[2])


def _is_relion(folder: Path, start: Path) -> bool:
    """Return whether `folder` is a RELION project: by marks, or start is folder/Type/jobNNN."""
    inside = start.relative_to(folder).parts
    if len(inside) >= 2 and _RELION_JOB.fullmatch(inside[1]):
        return True
    return any((folder / mark).exists() for mark in _RELION_MARKS)


def _is_cryosparc(folder: Path, start: Path) -> bool:
    """Return whether `folder` is a cryoSPARC project: by marks, or start is folder/JNNN."""
    inside = start.relative_to(folder).parts
    if inside and (
        _CRYOSPARC_JOB.fullmatch(inside[0]) or (folder / inside[0] / "job.json").exists()
    ):
        return True
    return any((folder / mark).exists() for mark in _CRYOSPARC_MARKS)
