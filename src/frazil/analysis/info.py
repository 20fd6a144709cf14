"""What is in a file or folder, whatever kind it is.

Owns: which kind a path is. Does not own: the facts of each kind.
"""

from pathlib import Path

from frazil.analysis.facts import Facts
from frazil.analysis.file_facts import describe_arrays, describe_mrc
from frazil.analysis.particle_facts import describe_particles
from frazil.analysis.store_facts import describe_run, describe_store
from frazil.errors import InputError, MissingFileError
from frazil.io.cryosparc_groups import is_job_folder
from frazil.io.paths import NO_HINTS, Places
from frazil.runs.folder import is_run
from frazil.store.writer import partial_path


def describe(path: Path, places: Places = NO_HINTS) -> Facts:
    """Return the facts of a particle file, store, run, MRC file, pickle or .npy file.

    Parameters
    ----------
    path : the file or folder.
    places : where the stacks of a particle file may be, beside what the file says.

    Raises
    ------
    MissingFileError : nothing is there. InputError : of no kind that is known.
    """
    unfinished = path.name != "" and partial_path(path).is_dir()  # Path(".") has no name
    if path.is_dir() and is_run(path):
        return describe_run(path)
    if unfinished or (path / "shards").is_dir():
        return describe_store(path)
    if is_job_folder(path):
        return describe_particles(path, places)
    if path.is_dir():
        raise InputError(f"{path}: this folder is no particle store, no run, no cryoSPARC job")
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix in (".star", ".cs", ".csg", ".txt"):
        return describe_particles(path, places)
    if suffix in (".mrc", ".mrcs", ".map", ".st"):
        return describe_mrc(path)
    if suffix in (".pkl", ".npy"):
        return describe_arrays(path)
    raise InputError(
        f"{path}: info knows .star, .cs, .csg, .txt, .mrcs, .mrc, .pkl, .npy, and folders of "
        "stores, runs and cryoSPARC jobs"
    )
