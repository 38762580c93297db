"""A run's measurements, read while the run may still be writing them.

Letters: n steps, m of them at which something was measured.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcae_core.errors import DataError
from pcae_core.protocol import Floats

MISSING = float("nan")
LARGEST = 1e100
"""Measurements beyond are as good as infinite, and would leave a chart no room for the others."""


@dataclass(frozen=True)
class Series:
    """One measurement: steps (m,) at which it was taken, ascending, and values (m,), NaN beyond `LARGEST`."""

    steps: Floats
    values: Floats

    @property
    def finite(self) -> Floats:
        """The values that are numbers."""
        found: Floats = self.values[np.isfinite(self.values)]
        return found


@dataclass(frozen=True)
class History:
    """What `metrics.jsonl` holds.

    Attributes:
        steps: ascending (n,), each once: of a step that was done again, the last measurement.
        series: by name, in the file's order.
        unreadable: lines that were left out, such as a last one that is half written.
    """

    steps: Floats
    series: dict[str, Series]
    unreadable: int

    def last(self, name: str) -> float | None:
        """The newest finite value of a measurement."""
        finite = self.series[name].finite if name in self.series else np.empty(0)
        return float(finite[-1]) if len(finite) else None


def read(path: Path) -> History:
    """Read a file of JSON lines; without the file, an empty history.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    found = [_parse(line) for line in text.splitlines() if line.strip()]
    by_step = {entry["step"]: entry for entry in found if entry is not None}
    rows = [by_step[step] for step in sorted(by_step)]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    series = {}
    for name in names:
        measured = [row for row in rows if name in row]
        series[name] = Series(*(np.array([row[key] for row in measured]) for key in ("step", name)))
    return History(np.array([row["step"] for row in rows]), series, found.count(None))


def _parse(line: str) -> dict[str, float] | None:
    """The numbers of a line; None when it is not an object with a step."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    numbers = {name: _number(value) for name, value in values.items() if isinstance(value, int | float)}
    return numbers if math.isfinite(numbers.get("step", MISSING)) else None


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return MISSING
    return number if abs(number) < LARGEST else MISSING
