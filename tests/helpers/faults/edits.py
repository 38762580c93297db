"""A private copy of a backend's modules with a few words of their source replaced.

The text to replace must occur exactly once, so that a fault cannot quietly stop being one when the backend changes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys

from pcae_core import Backend

Edit = tuple[str, str, str]
"""Module, text, text in its place."""


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
    def __init__(self, package: str, edits: tuple[Edit, ...]) -> None:
        self._package, self._edits = package, edits
        self._origin = importlib.util.find_spec(package).submodule_search_locations[0]

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] != self._package:
            return None
        module = fullname.rpartition(".")[2] if "." in fullname else "__init__"
        edits = [(old, new) for name, old, new in self._edits if name == module]
        file = f"{self._origin}/{module}.py"
        search = [self._origin] if module == "__init__" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, file, edits), submodule_search_locations=search
        )


def _take_modules(package: str) -> dict:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == package}


def edited_backend(package: str, edits: tuple[Edit, ...]) -> Backend:
    """A backend with the edits; the real modules are back in place afterwards."""
    finder, real = _Finder(package, edits), _take_modules(package)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.import_module(f"{package}.backend")
    finally:
        sys.meta_path.remove(finder)
        _take_modules(package)
        sys.modules.update(real)
    backend_class = next(
        value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
    )
    return backend_class("cpu")
