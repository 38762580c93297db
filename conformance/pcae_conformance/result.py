"""What came of one check in one dtype: the runner makes it, the list of known failures judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pcae_conformance.check import Check

Verdict = Literal["passed", "failed", "known failure", "not run"]


@dataclass
class Result:
    """What came of one check in one dtype.

    Attributes:
        examples: cases run, shrinking not counted.
        worst: largest error in units of the tolerance; worst_input: the case that had it, described.
        message: of a failure, or why the check was not run or is known to fail.
    """

    check: Check
    dtype: str
    verdict: Verdict = "passed"
    examples: int = 0
    worst: float = 0.0
    worst_input: str = ""
    message: str = ""
