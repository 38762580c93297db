"""What a check is, and the list of all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis.strategies import SearchStrategy

from pcae_conformance.cases import Case, NoCase
from pcae_conformance.dtypes import EPS
from pcae_conformance.subject import Subject
from pcae_core.contract import Capabilities

C = TypeVar("C", bound=Case)

MODULES = (
    "contract",
    "arrays",
    "scores",
    "selection",
    "reduction",
    "grid",
    "schedule",
    "standardize_loss",
    "ema",
    "masks",
    "model",
    "stages",
    "gradients",
    "training",
    "training_state",
    "finetuning",
    "half",
)
"""Of `pcae_conformance.checks`, in the order of the contract."""

ALL = tuple(EPS)
"""In every dtype that the backend claims."""
WIDE = ("float64", "float32")
DOUBLE = ("float64",)
ONCE = ()
"""Once, in the widest dtype that the backend claims: the outcome does not depend on it."""


@dataclass(frozen=True)
class Check:
    """One property of a backend.

    Attributes:
        statement: the property in one line, in the field's terms.
        function: takes a subject and a case, and raises when the property does not hold.
        examples: cases that are always run, the sharp ones; a single `NoCase` for a check without input.
        strategy: draws further cases; None where the examples are all there is.
        dtypes: those in which the check makes sense; empty for `ONCE`.
        training: needs a backend that trains.
    """

    name: str
    statement: str
    function: Callable[[Subject, Any], None]
    examples: tuple[Case, ...]
    strategy: SearchStrategy[Any] | None
    dtypes: tuple[str, ...]
    training: bool

    @property
    def case_type(self) -> type[Case]:
        """The class of its cases."""
        return type(self.examples[0])

    def dtypes_for(self, capabilities: Capabilities, chosen: str | None = None) -> list[str]:
        """Dtypes to run in, widest first: those claimed and sensible, or of them the one chosen."""
        claimed = [name for name in EPS if name in capabilities.dtypes and chosen in (None, name)]
        return [name for name in claimed if name in self.dtypes] if self.dtypes else claimed[:1]


_checks: dict[str, Check] = {}


def check(
    name: str,
    *,
    statement: str,
    strategy: SearchStrategy[C] | None = None,
    examples: Sequence[C] = (),
    dtypes: tuple[str, ...] = ALL,
    training: bool = False,
) -> Callable[[Callable[[Subject, C], None]], Callable[[Subject, C], None]]:
    """Adds a function to the list of checks; the arguments are the attributes of `Check`."""

    def register(function: Callable[[Subject, C], None]) -> Callable[[Subject, C], None]:
        if name in _checks:
            raise ValueError(f"two checks are named {name!r}")
        cases = tuple(examples) or (NoCase(),)
        _checks[name] = Check(name, statement, function, cases, strategy, dtypes, training)
        return function

    return register


def all_checks() -> dict[str, Check]:
    """Every check by name, in the order of the contract."""
    for module in MODULES:  # importing them fills the list
        importlib.import_module(f"pcae_conformance.checks.{module}")
    return dict(_checks)
