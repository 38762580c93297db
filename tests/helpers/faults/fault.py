"""A planted fault: a backend of which one thing is wrong.

A fault in a public operation overrides a method (`numpy_override`, `torch_override`). A fault inside the arithmetic
replaces words of the source (`numpy_edit`, `torch_edit`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faults.edits import Edit, edited_backend
from pcae_core import Backend, registry


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        name: the mistake, in a few words.
        caught_by: the check that must fail.
        dtype: in which the check must fail; None for the widest that it runs in.
        framework: name of the backend that has the mistake.
        edits: of its source; empty where there is `backend`.
        backend: creates the wrong backend.
    """

    name: str
    caught_by: str
    dtype: str | None = None
    framework: str = "numpy"
    edits: tuple[Edit, ...] = ()
    backend: Callable[[], Backend] | None = None

    def create(self) -> Backend:
        return edited_backend(f"pcae_{self.framework}", self.edits) if self.backend is None else self.backend()


def numpy_edit(name: str, caught_by: str, *edits: Edit) -> Fault:
    return Fault(name, caught_by, edits=edits)


def torch_edit(name: str, caught_by: str, dtype: str, *edits: Edit) -> Fault:
    return Fault(name, caught_by, dtype, "torch", edits)


def numpy_override(name: str, caught_by: str, **members: Any) -> Fault:
    return Fault(name, caught_by, backend=functools.partial(overridden_backend, "numpy", members))


def torch_override(name: str, caught_by: str, dtype: str, **members: Any) -> Fault:
    return Fault(name, caught_by, dtype, "torch", backend=functools.partial(overridden_backend, "torch", members))


def overridden_backend(framework: str, members: dict[str, Any]) -> Backend:
    """A backend of a subclass with these methods and attributes; `self.right` is a backend without them.

    The backend must have each name, so that a fault cannot quietly stop being one when the contract changes.
    """
    right = registry.create(framework, device="cpu")
    if unknown := [name for name in members if not hasattr(right, name)]:
        raise ValueError(f"the backend has no {', '.join(unknown)}")
    return type("Wrong", (type(right),), members | {"right": right})("cpu")
