"""The name of a file to be written: its suffix, its folder, and that it is none that is read.

Owns: these checks. Does not own: writing (`atomic`).
"""

from collections.abc import Iterable
from pathlib import Path

from frazil.errors import InputError


def check_output(
    out: Path, suffixes: tuple[str, ...] = (".pkl",), inputs: Iterable[Path | str] = ()
) -> None:
    """Make the folder of a file to be written.

    Parameters
    ----------
    out : the file.
    suffixes : one of them must end its name.
    inputs : files that are read, which it must not replace.

    Raises
    ------
    InputError : another suffix, or `out` is one of the inputs.
    """
    if out.suffix not in suffixes:
        raise InputError(f"-o {out}: the name must end in {' or '.join(suffixes)}")
    if out.resolve() in {Path(path).resolve() for path in inputs}:
        raise InputError(f"-o {out}: would replace a file that is read; give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
