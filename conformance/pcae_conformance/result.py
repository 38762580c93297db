"""Result of one check in one dtype. The runner makes it; the list of known failures may change its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pcae_conformance.check import Check

Verdict = Literal["passed", "failed", "known failure", "not run"]


@dataclass
class Result:
    """Result of one check in one dtype.

    Attributes:
        examples: number of cases run, without those of shrinking.
        worst: largest error in units of the tolerance.
        worst_input: description of the case with that error.
        message: message of a failure, or the reason why the check was not run or is known to fail.
    """

    check: Check
    dtype: str
    verdict: Verdict = "passed"
    examples: int = 0
    worst: float = 0.0
    worst_input: str = ""
    message: str = ""
