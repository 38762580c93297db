"""Reports of a run: a table for the terminal, and JSON with versions."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import pcae_core
from pcae_conformance.result import Result
from pcae_conformance.runner import Options
from pcae_core import registry

COLORS = {"passed": "green", "failed": "red", "known failure": "yellow", "not run": "dim"}
WORST_FIRST = ("failed", "known failure", "passed", "not run")


def by_check(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Name of a check -> its results, one for each dtype."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.check.name, []).append(result)
    return groups


def verdict(results: list[Result]) -> str:
    """The verdict of a check: the worst over its dtypes."""
    return min((result.verdict for result in results), key=WORST_FIRST.index)


def table(options: Options, results: list[Result]) -> Table:
    """A table with one row for each check, over all its dtypes. Errors are in units of their tolerance."""
    made = Table(title=escape(_title(options)))
    for header in ("check", "examples", "worst error", "of the input", "verdict"):
        made.add_column(header, no_wrap=header == "check")
    for name, group in by_check(results).items():
        worst = max(group, key=lambda result: result.worst)
        outcome = verdict(group)
        notes = {result.message for result in group if result.verdict in ("known failure", "not run")}
        made.add_row(
            name,
            str(sum(result.examples for result in group)),
            f"{worst.worst:.2g}" if worst.dtype else "",
            worst.worst_input,
            f"[{COLORS[outcome]}]{outcome}[/]" + "".join(f" ({escape(note)})" for note in sorted(notes)),
        )
    return made


def _title(options: Options) -> str:
    how = ", compiled" if options.compiled else ""
    return f"conformance of {options.name}{how}, {options.max_examples} examples a check, seed {options.seed}"


def failures(results: Iterable[Result]) -> list[str]:
    """A paragraph for each failure: check, statement, smallest input, both values, and the command to run it again."""
    return [
        f"{result.check.name} in {result.dtype}: {result.check.statement}\n  {result.message}"
        for result in results
        if result.verdict == "failed"
    ]


def summary(results: list[Result]) -> str:
    """Number of checks with each verdict."""
    counts = Counter(verdict(group) for group in by_check(results).values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in WORST_FIRST if counts[outcome])


def versions(options: Options) -> dict[str, str | None]:
    """Versions of everything that a result can depend on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "pcae": pcae_core.__version__,
        "numpy": importlib.metadata.version("numpy"),
        "hypothesis": importlib.metadata.version("hypothesis"),
        options.name: registry.available()[options.name].version,
    }


def write_json(path: Path, options: Options, results: list[Result]) -> None:
    """Write options, versions, and the results, one for each check and dtype. Raises OSError."""
    values: dict[str, Any] = {
        "backend": options.name,
        "device": options.device,
        "max_examples": options.max_examples,
        "seed": options.seed,
        "compiled": options.compiled,
        "versions": versions(options),
        "checks": [_plain(result) for result in results],
    }
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _plain(result: Result) -> dict[str, Any]:
    # JSON has no infinity: an error beside a tolerance of zero is null.
    finite = result.worst if result.worst < float("inf") else None
    return {
        "check": result.check.name,
        "statement": result.check.statement,
        "dtype": result.dtype or None,
        "verdict": result.verdict,
        "examples": result.examples,
        "worst_error_in_tolerances": finite,
        "worst_input": result.worst_input,
        "message": result.message,
    }
