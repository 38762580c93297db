"""Known failures of a backend: a file of its own, a reason each.

`conformance-xfails.txt` lies beside the module that the backend's entry point names. A line is a check's name, or
`name[dtype]`, then `#` and the reason; other text after `#` alone on a line is a comment. An entry that matches no
check, and a check that is listed but passes, are errors: the list must not outlive its reasons.
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
    """The backend's list, or None when it has none. The backend's framework is not imported."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=backend)
    for point in points:
        spec = importlib.util.find_spec(point.module)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).with_name(FILE_NAME)
            return path if path.is_file() else None
    return None


@dataclass(frozen=True)
class KnownFailures:
    """Reasons by entry, an entry being `check` or `check[dtype]`."""

    reasons: dict[str, str]
    file: Path | None = None

    @classmethod
    def of(cls, backend: str) -> KnownFailures:
        """Those of a backend by name. Raises ConfigError when the list cannot be read."""
        file = find_file(backend)
        return cls(parse(file.read_text(encoding="utf-8"), file) if file else {}, file)

    def check_entries(self, checks: Container[str], planned: list[tuple[Check, str]] | None) -> None:
        """Raises ConfigError for an entry that matches no check, or none of those planned when all are."""
        running = None if planned is None else {e for check, dtype in planned if dtype for e in _entries(check, dtype)}
        for entry in self.reasons:
            if entry.partition("[")[0] not in checks or (running is not None and entry not in running):
                raise ConfigError(f"{self.file}: {entry!r} matches no check that this backend runs; remove the line")

    def judge(self, result: Result) -> Result:
        """The result, with a failure that is listed excused and a success that is listed refused."""
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
    """Reason by entry. Raises ConfigError for a line without a reason or an entry that is there twice."""
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
