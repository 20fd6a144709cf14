"""The one error family of frazil.

Owns: the exceptions every layer raises for wrong input or a wrong environment. Each is also the
builtin error a library user would expect, and its message is one line that says what was wanted,
what was found, where (file, row, shard) and what to do next. `frazil.cli` prints that line and
exits with code 2. Does not own: programming errors, which stay what Python raises.
"""


class FrazilError(Exception):
    """Base of every error that is the user's or the environment's to mend."""

    def __str__(self) -> str:
        """Return the line; what a damaged file may have put into it is escaped where it must be."""
        text = super().__str__()
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class InputError(FrazilError, ValueError):
    """A file, a row or an option holds something that cannot be used."""


class MissingFileError(FrazilError, FileNotFoundError):
    """A file that the input names is not there."""


class OutputExistsError(FrazilError, FileExistsError):
    """The output is complete already, or belongs to a run with other settings."""


class CorruptDataError(FrazilError, OSError):
    """Bytes on disk are not those that were written (truncated stack, flipped byte)."""


class StoppedError(FrazilError, InterruptedError):
    """Work was stopped from outside, and can be gone on with."""


class BudgetError(FrazilError, MemoryError):
    """What was asked for cannot fit into the memory or disk at hand."""


class WorkerLostError(FrazilError, RuntimeError):
    """A process of a cluster ended, or could not be reached, and nobody could do its part."""
