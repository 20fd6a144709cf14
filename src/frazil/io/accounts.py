"""How many rows went into a stage, were dropped and why, and came out.

Owns: the account, its sum, and its wording. Does not own: who drops rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RowAccount:
    """Rows of one stage. A sum that does not close is an error of the program, not of the input.

    Attributes
    ----------
    rows_in, rows_out : rows that the stage was given, and that it hands on.
    dropped : reason -> rows, each counted under one reason; reasons without rows are left out.
    """

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise RuntimeError unless in = dropped + out."""
        dropped = {reason: count for reason, count in self.dropped.items() if count}
        object.__setattr__(self, "dropped", dropped)
        counts = (self.rows_in, self.rows_out, *dropped.values())
        if min(counts) < 0 or self.rows_in != self.rows_out + sum(dropped.values()):
            raise RuntimeError(
                f"rows do not add up: {self.rows_in} in, {dict(dropped)} dropped, "
                f"{self.rows_out} out"
            )

    @classmethod
    def all_of(cls, rows: int) -> "RowAccount":
        """Return the account of a stage that drops nothing."""
        return cls(rows, rows)

    def line(self, out: str = "out") -> str:
        """Return the account as a line, e.g. "rows: 20 in, 15 dropped (--ind 15), 5 out"."""
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items())
        why = f" ({reasons})" if reasons else ""
        return f"rows: {self.rows_in} in, {self.rows_in - self.rows_out} dropped{why}, " + (
            f"{self.rows_out} {out}"
        )
