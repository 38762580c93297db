"""A private copy of a backend's modules with a few words of their source replaced.

The text to replace must occur exactly once, so that a fault cannot quietly stop being one when the backend changes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass

from pcae_core import Backend


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Attributes:
        says: the mistake, in a few words.
        caught_by: the check that must fail.
        edits: (module, text, text in its place).
        dtype: in which the check must fail; None for the widest that it runs in.
    """

    says: str
    caught_by: str
    edits: tuple[tuple[str, str, str], ...]
    package: str = "pcae_numpy"
    dtype: str | None = None


def numpy_fault(says: str, caught_by: str, *edits: tuple[str, str, str]) -> Fault:
    return Fault(says, caught_by, edits)


def torch_fault(says: str, caught_by: str, dtype: str, *edits: tuple[str, str, str]) -> Fault:
    return Fault(says, caught_by, edits, "pcae_torch", dtype)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, edits: list[tuple[str, str]]) -> None:
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname):
        source = self.get_source(fullname)
        for old, new in self._edits:
            if source.count(old) != 1:
                raise ValueError(f"{self.path} has {source.count(old)} times, not once: {old!r}")
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._origin = importlib.util.find_spec(fault.package).submodule_search_locations[0]

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != self._fault.package:
            return None
        module = fullname.rpartition(".")[2] if "." in fullname else "__init__"
        edits = [(old, new) for name, old, new in self._fault.edits if name == module]
        file = f"{self._origin}/{module}.py"
        search = [self._origin] if module == "__init__" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, file, edits), submodule_search_locations=search
        )


def _take_modules(package: str) -> dict:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}


def broken_backend(fault: Fault) -> Backend:
    """A backend with the fault; the real modules are back in place afterwards."""
    finder, real = _Finder(fault), _take_modules(fault.package)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(f"{fault.package}.backend")
    finally:
        sys.meta_path.remove(finder)
        _take_modules(fault.package)
        sys.modules.update(real)
    backend_class = next(
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    )
    return backend_class("cpu")
