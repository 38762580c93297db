"""The class of a check, and the list of all checks."""

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
    "layers",
    "stages",
    "gradients",
    "training",
    "training_state",
    "finetuning",
    "half",
)
"""Modules of `pcae_conformance.checks`, in the order of the contract."""

ALL = tuple(EPS)
"""Run in every dtype that the backend claims."""
WIDE = ("float64", "float32")
DOUBLE = ("float64",)
ONCE = ()
"""Run once, in the widest dtype that the backend claims: the outcome does not depend on the dtype."""


@dataclass(frozen=True)
class Check:
    """One property of a backend.

    Attributes:
        statement: the property in one line, in the field's terms.
        function: function of a subject and a case; raises when the property does not hold.
        examples: edge cases that are always run; a single `NoCase` for a check without input.
        strategy: strategy that draws more cases; None if there are only the examples.
        dtypes: dtypes to run in; empty for `ONCE`.
        training: whether the check needs a backend that trains.
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
        """The class of the check's cases."""
        return type(self.examples[0])

    def dtypes_for(self, capabilities: Capabilities, chosen: str | None = None) -> list[str]:
        """Dtypes to run in, widest first: those that backend and check both have, or `chosen` if it is one of them."""
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
    """Decorator that adds a function to the list of checks; the arguments are the attributes of `Check`."""

    def register(function: Callable[[Subject, C], None]) -> Callable[[Subject, C], None]:
        if name in _checks:
            raise ValueError(f"two checks are named {name!r}")
        cases = tuple(examples) or (NoCase(),)
        _checks[name] = Check(name, statement, function, cases, strategy, dtypes, training)
        return function

    return register


def all_checks() -> dict[str, Check]:
    """Every check by name, in the order of the contract."""
    for module in MODULES:  # importing a module adds its checks
        importlib.import_module(f"pcae_conformance.checks.{module}")
    return dict(_checks)
