"""Facts about a file, for people and for machines.

Owns: how a fact is written, aligned lines and JSON. Does not own: finding facts
(`particle_facts`, `file_facts`, `store_facts`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JSON = str | int | float | bool | None | list[Any] | dict[str, Any]


@dataclass
class Facts:
    """What is known of one path: its kind, facts in order, and notes.

    Each fact has a label, a text with units for people, and a plain value for machines, whose key
    is the label with underscores and the unit, e.g. "pixel size" in "ang".
    """

    path: Path
    kind: str
    texts: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, JSON] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, label: str, text: str, value: JSON, unit: str = "") -> None:
        """Add one fact."""
        self.texts.append((label, text))
        self.values["_".join([*label.split(), *([unit] if unit else [])])] = value

    def add_range(self, label: str, values: NDArray[Any], unit: str, key_unit: str) -> None:
        """Add the range of a column; one number when all are equal."""
        known = values[np.isfinite(values)]
        if not known.size:
            return
        low, high = float(known.min()), float(known.max())
        same = high - low <= 1e-6 * abs(high)
        text = f"{low:.5g}" if same else f"{low:.5g} to {high:.5g}"
        self.add(label, f"{text} {unit}".rstrip(), [low, high], key_unit)

    def to_json(self) -> dict[str, JSON]:
        """Return all of it as plain values."""
        return {"path": str(self.path), "kind": self.kind, **self.values, "notes": self.notes}

    def lines(self) -> Iterator[str]:
        """Yield aligned lines."""
        yield f"{self.path}: {self.kind}"
        width = max((len(label) for label, _ in self.texts), default=0)
        for label, text in self.texts:
            yield f"  {label:<{width}}  {text}"
        yield from (f"  note: {note}" for note in self.notes)


def counts_text(counts: Mapping[str, int], most: int = 4) -> str:
    """Return "name count" of the first few, and how many more there are."""
    shown = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:most])
    return shown + (f", and {len(counts) - most} more" if len(counts) > most else "")
