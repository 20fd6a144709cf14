"""Import: what is in a particle set, where it came from, and one file that holds all of it.

Owns: the report, and the choice of what is written. Does not own: the formats (`frazil.io`).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from frazil.errors import InputError
from frazil.io.accounts import RowAccount
from frazil.io.cryosparc_groups import find_cs_files, is_job_folder
from frazil.io.cryosparc_join import CsColumns, write_joined
from frazil.io.images import missing_stacks, open_particles
from frazil.io.particles import ParticleTable
from frazil.io.paths import Places
from frazil.io.star import copy_rows
from frazil.preprocess.inputs import DistinctImages
from frazil.preprocess.report import headline


def import_particles(
    path: Path, places: Places, class_index: int | None, out: Path | None
) -> Iterator[str]:
    """Yield what was found in a particle set; write it as one file when `out` is given.

    Parameters
    ----------
    path : a particle file, or the folder of a cryoSPARC job.
    places : where the stacks may be, beside what the file says.
    class_index : the class to take of a cryoSPARC job that has several.
    out : X.cs for cryoSPARC's particles: all fields of all files, joined on uid. X.star for
        RELION's: the file as it was, with the stacks' paths as they were found.

    Raises
    ------
    InputError, MissingFileError : see `open_particles`; or `out` is of another kind than the input.
    """
    wanted = _kind(path)
    if out is not None and (wanted is None or out.suffix != wanted):
        what = "import writes .cs of cryoSPARC and .star of RELION particles"
        remedy = f"give -o X{wanted}" if wanted else "leave -o out"
        raise InputError(f"-o {out}: {path} cannot be written so, {what}; {remedy}")
    table = open_particles(path, places, class_index=class_index)
    yield from describe_set(table)
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if wanted == ".cs":
        joined = write_joined(CsColumns(find_cs_files(path, class_index)), out)
        yield from (line for line in joined if line not in table.provenance)
    else:
        _write_star(path, table, out)
    yield f"wrote {out}: {len(table)} particles"


def describe_set(table: ParticleTable) -> Iterator[str]:
    """Yield what is there, where it came from, and the account of rows, images and stacks."""
    rows = table.rows
    yield headline(table)
    yield from table.provenance
    yield from table.notes
    if table.blob_sign is not None:
        sense = "dark" if table.blob_sign < 0 else "light"
        yield f"blob/sign: {table.blob_sign}, particles are {sense}"
    images = len(DistinctImages.of(table).rows)
    yield f"{RowAccount.all_of(len(table)).line()}; {images} different images"
    uids = np.sort(rows["uid"][rows["uid"] != 0])
    repeats = int((uids[1:] == uids[:-1]).sum())
    if repeats:
        yield f"{table.origin}: {repeats} rows repeat the uid of another row"
    yield missing_stacks(table) or "all stacks were found"


def _kind(path: Path) -> str | None:
    """Return the suffix of what can be written of an input; None for neither."""
    if path.suffix in (".cs", ".csg") or is_job_folder(path):
        return ".cs"
    return ".star" if path.suffix == ".star" else None


def _write_star(path: Path, table: ParticleTable, out: Path) -> None:
    """Write the STAR file as it was, with the stacks' paths as they were found."""
    if out.absolute() == path.absolute():
        raise InputError(f"-o {out}: is read as input; give it another name")
    places = zip(table.rows["index"].tolist(), table.rows["source"].tolist(), strict=True)
    names = [f"{index + 1:06d}@{table.sources[source]}" for index, source in places]
    copy_rows(path, out, np.arange(len(table)), {"_rlnImageName": names})
