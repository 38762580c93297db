"""Known failures of a backend: a file with a reason for each.

The file is `conformance-xfails.txt`, in the folder of the module that the backend's entry point names. A line is a
check's name, or `name[dtype]`, then `#` and the reason. A line that starts with `#` is a comment. It is an error if an
entry matches no check, or if a listed check passes: the list must not outlive its reasons.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from pcae_conformance.check import Check
from pcae_conformance.result import Result
from pcae_core.errors import ConfigError
from pcae_core.registry import ENTRY_POINT_GROUP

FILE_NAME = "conformance-xfails.txt"


def find_file(backend: str) -> Path | None:
    """Path of the backend's list, or None if there is none. The backend's framework is not imported."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=backend)
    for point in points:
        spec = importlib.util.find_spec(point.module)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).with_name(FILE_NAME)
            return path if path.is_file() else None
    return None


@dataclass(frozen=True)
class KnownFailures:
    """Reasons by entry. An entry is `check` or `check[dtype]`."""

    reasons: dict[str, str]
    file: Path | None = None

    @classmethod
    def of(cls, backend: str) -> KnownFailures:
        """The known failures of a backend, by its name. Raises ConfigError when the list cannot be read."""
        file = find_file(backend)
        return cls(parse(file.read_text(encoding="utf-8"), file) if file else {}, file)

    def check_entries(self, checks: Container[str], planned: list[tuple[Check, str]] | None) -> None:
        """Raise ConfigError for an entry that matches no check, or no planned one. `planned` is None if not all run."""
        running = None if planned is None else {e for check, dtype in planned if dtype for e in _entries(check, dtype)}
        for entry in self.reasons:
            if entry.partition("[")[0] not in checks or (running is not None and entry not in running):
                raise ConfigError(f"{self.file}: {entry!r} matches no check that this backend runs; remove the line")

    def judge(self, result: Result) -> Result:
        """The result. A listed failure is excused, and a listed success becomes a failure."""
        reason = next((self.reasons[e] for e in _entries(result.check, result.dtype) if e in self.reasons), None)
        if reason is None:
            return result
        if result.verdict == "failed":
            result.verdict, result.message = "known failure", reason
        else:
            result.verdict = "failed"
            result.message = f"listed in {self.file} as a known failure ({reason}), but it passes; remove the line"
        return result


def _entries(check: Check, dtype: str) -> tuple[str, str]:
    return f"{check.name}[{dtype}]", check.name


def parse(text: str, file: Path) -> dict[str, str]:
    """Parse the list to reasons by entry. Raises ConfigError for a line without a reason, or a repeated entry."""
    reasons: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry, _, reason = (part.strip() for part in line.partition("#"))
        if not entry:
            continue
        if not reason or entry in reasons:
            problem = "listed twice" if reason else "no reason; write `check-name  # reason`"
            raise ConfigError(f"{file}:{number}: {entry!r}: {problem}")
        reasons[entry] = reason
    return reasons
