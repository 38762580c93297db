"""The registry of backends, and the backend in use.

A backend announces a `BackendSpec` under the entry-point group "pcae.backends". A spec is light: the framework is
imported when the backend is created, never before. `use` sets the backend of the current thread or async task only (a
context variable).
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pcae_core.contract import Backend, Capabilities
from pcae_core.errors import BackendError, MissingExtraError

ENTRY_POINT_GROUP = "pcae.backends"
_in_use: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("pcae_backend_in_use", default=None)


@dataclass(frozen=True)
class BackendSpec:
    """Description of a backend that needs no import of its framework.

    Attributes:
        create: function that takes the options of `use`, imports the framework and returns the backend.
        requires: modules that must be importable.
        distribution: distribution whose version is the backend's version.
        install: command that installs the missing modules.
        weights_suffix: suffix of the framework's own weights files, such as ".pth", for `Backend.save_weights` and
            `load_weights`.
    """

    name: str
    create: Callable[..., Backend]
    capabilities: Capabilities
    requires: tuple[str, ...] = ()
    distribution: str | None = None
    install: str = ""
    weights_suffix: str | None = None


@dataclass(frozen=True)
class BackendInfo:
    """One entry of `available()`. `problem` is the reason why the backend cannot be used, or None."""

    installed: bool
    version: str | None
    capabilities: Capabilities | None
    install: str
    problem: str | None = None


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _load(point: importlib.metadata.EntryPoint) -> BackendSpec:
    try:
        spec = point.load()
    except Exception as error:
        raise BackendError(f"the backend {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(spec, BackendSpec):
        raise BackendError(
            f"the entry point of backend {point.name!r} must be a BackendSpec, not {type(spec).__name__}"
        )
    return spec


def _missing(spec: BackendSpec) -> list[str]:
    return [module for module in spec.requires if importlib.util.find_spec(module) is None]


def _version(spec: BackendSpec) -> str | None:
    if spec.distribution is None:
        return None
    try:
        return importlib.metadata.version(spec.distribution)
    except importlib.metadata.PackageNotFoundError:  # another distribution has the module, such as onnxruntime-gpu
        names = importlib.metadata.packages_distributions().get(spec.requires[-1], [])
        return importlib.metadata.version(names[0]) if names else None


def _info(point: importlib.metadata.EntryPoint) -> BackendInfo:
    try:
        spec = _load(point)
    except BackendError as error:
        return BackendInfo(False, None, None, "", str(error))
    missing = _missing(spec)
    if missing:
        return BackendInfo(False, None, spec.capabilities, spec.install, f"{', '.join(missing)} is not installed")
    return BackendInfo(True, _version(spec), spec.capabilities, spec.install)


def available() -> dict[str, BackendInfo]:
    """All announced backends by name, installed or not; imports no framework."""
    return {name: _info(point) for name, point in sorted(_entry_points().items())}


def writers() -> dict[str, str]:
    """Suffix of a framework's weights files -> name of the backend that reads and writes them, installed or not."""
    suffixes = {}
    for name, point in sorted(_entry_points().items()):
        with contextlib.suppress(BackendError):  # `available` shows the problem
            suffix = _load(point).weights_suffix
            if suffix is not None:
                suffixes[suffix] = name
    return suffixes


def create(name: str, **options: Any) -> Backend:
    """Create a backend without putting it in use.

    Raises:
        BackendError: there is no backend of that name, or it cannot be created with these options.
        MissingExtraError: its framework is not installed.
    """
    points = _entry_points()
    if name not in points:
        raise BackendError(f"unknown backend {name!r}; known: {', '.join(sorted(points)) or 'none'}")
    spec = _load(points[name])
    missing = _missing(spec)
    if missing:
        raise MissingExtraError(
            f"the backend {name!r} needs {', '.join(missing)}, which is not installed; install it with: {spec.install}"
        )
    return spec.create(**options)


def use(name: str, **options: Any) -> Backend:
    """Create a backend, put it in use in this thread or task, and return it.

    In a `with` statement, the backend before it is in use again after the block.

    Args:
        name: name in `available()`.
        options: options of the backend, such as `device="cuda"`.

    Raises:
        BackendError, MissingExtraError: as `create`.
    """
    backend = create(name, **options)
    before = _in_use.get()
    backend._leave = lambda: _in_use.set(before)
    _in_use.set(backend)
    return backend


def current() -> Backend:
    """The backend in use in this thread or task. Raises BackendError when there is none."""
    backend = _in_use.get()
    if backend is None:
        raise BackendError('no backend is in use here; choose one with pcae.use("torch")')
    return backend
