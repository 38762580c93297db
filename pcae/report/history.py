"""A run's measurements, read while the run may still be writing them.

Letters: n steps, m of them with a value of one measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_core.contract import Floats
from pcae_core.errors import DataError
from pcae_core.training.loggers import parse_line, read_lines


@dataclass(frozen=True)
class Series:
    """Values of one measurement (m,), NaN beyond `loggers.LARGEST`, and their steps (m,), ascending."""

    steps: Floats
    values: Floats

    @property
    def finite(self) -> Floats:
        """The finite values."""
        found: Floats = self.values[np.isfinite(self.values)]
        return found


@dataclass(frozen=True)
class History:
    """The content of `metrics.jsonl`.

    Attributes:
        steps: steps (n,), ascending and unique. If a step was repeated, its last measurement counts.
        series: measurements by name, in the file's order.
        unreadable: number of lines left out, such as a half-written last line.
    """

    steps: Floats
    series: dict[str, Series]
    unreadable: int

    def last(self, name: str) -> float | None:
        """The newest finite value of a measurement."""
        finite = self.series[name].finite if name in self.series else np.empty(0)
        return float(finite[-1]) if len(finite) else None


def read(path: Path) -> History:
    """Read a file of JSON lines. The history is empty if the file does not exist.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = read_lines(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    found = [parse_line(line) for line in lines if line.strip()]
    by_step: dict[float, dict[str, float]] = {}
    for entry in found:
        if entry is not None:
            by_step[entry["step"]] = by_step.get(entry["step"], {}) | entry  # a score has its own line
    rows = [by_step[step] for step in sorted(by_step)]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    series = {}
    for name in names:
        measured = [row for row in rows if name in row]
        series[name] = Series(*(np.array([row[key] for row in measured]) for key in ("step", name)))
    return History(np.array([row["step"] for row in rows]), series, found.count(None))
