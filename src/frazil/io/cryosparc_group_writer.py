"""The .csg file beside a written .cs: what cryoSPARC's Import Result Group takes.

Owns: the text of a .csg. Does not own: reading one (`frazil.io.cryosparc_groups`), nor the .cs.

A result of a .csg is the fields "NAME/..." of its metafile, which is beside the .csg when its name
begins with ">".
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from frazil.errors import InputError
from frazil.io.cryosparc_groups import read_csg

# Results whose type is known from the .csg files of cryoSPARC's own exports.
KNOWN_RESULTS = ("alignments2D", "alignments3D", "blob", "ctf", "location", "pick_stats")
_EDITED = {"metafile": "'>{file}'", "num_items": "{count}"}


def group_of(main: Path) -> Path | None:
    """Return the .csg beside a .cs that names it; None when there is none, or several."""
    found = []
    for path in sorted(main.parent.glob("*.csg")):
        try:
            results = read_csg(path).results
        except InputError:
            continue
        if any(Path(result.metafile.lstrip(">")).name == main.name for result in results):
            found.append(path)
    return found[0] if len(found) == 1 else None


def edited_group(text: str, file: str, count: int) -> str:
    """Return the text of a .csg with every result in one file; all other lines stay as they are.

    Parameters
    ----------
    text : a .csg.
    file : name of the .cs, which lies beside the new .csg.
    count : number of its rows.
    """
    lines = []
    skipped_from: int | None = None  # lines deeper than this go on a value that was replaced
    for line in text.splitlines(keepends=True):
        indent = len(line) - len(line.lstrip(" "))
        if skipped_from is not None and indent > skipped_from:
            continue
        skipped_from = None
        key = line.strip().partition(":")[0]
        if key in _EDITED and indent >= 2:
            value = _EDITED[key].format(file=file.replace("'", "''"), count=count)
            line = f"{' ' * indent}{key}: {value}\n"
            skipped_from = indent
        lines.append(line)
    return "".join(lines)


def new_group(fields: Sequence[str], file: str, count: int, when: datetime) -> str:
    """Return a .csg for particles in one .cs: its results of KNOWN_RESULTS.

    Parameters
    ----------
    fields : names of the fields of the .cs.
    file, count : see `edited_group`.
    when : the time to be written.
    """
    lines = [
        f"created: {when:%Y-%m-%d %H:%M:%S.%f}",
        "group:",
        "  description: Particles written by frazil export",
        "  name: particles",
        "  title: Particles",
        "  type: particle",
        "results:",
    ]
    there = {field.partition("/")[0] for field in fields if "/" in field}
    for result in KNOWN_RESULTS:
        if result in there:
            lines += [f"  {result}:"]
            lines += [f"    metafile: '>{file.replace(chr(39), chr(39) * 2)}'"]
            lines += [f"    num_items: {count}", f"    type: particle.{result}"]
    return "\n".join([*lines, "version: v4.4.1", ""])
