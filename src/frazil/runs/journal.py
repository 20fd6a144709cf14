"""metrics.jsonl: what happened in training, one JSON object per line.

Owns: appending, and cutting back to where a checkpoint was made, so that a restart repeats no
line. Does not own: what is measured.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from frazil.errors import CorruptDataError


class Journal:
    """An open journal; use it as a context manager.

    Parameters
    ----------
    path : the file, made if it is not there.
    position_bytes : length to which it is cut first; what follows was written after the
        checkpoint that training goes on from.

    Raises
    ------
    CorruptDataError : the file is shorter than that.
    """

    def __init__(self, path: Path, position_bytes: int = 0) -> None:
        found = path.stat().st_size if path.exists() else 0
        if found < position_bytes:
            raise CorruptDataError(
                f"{path}: {found} bytes found, {position_bytes} wanted by the checkpoint; "
                "restore it, or begin anew with --overwrite"
            )
        self._file = path.open("ab")
        self._file.truncate(position_bytes)
        self._file.seek(position_bytes)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        self._file.write((json.dumps(line) + "\n").encode("utf-8"))
        self._file.flush()

    def synced_position(self) -> int:
        """Force the lines to disk and return the length of the file in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(json.loads(text))
    return lines
