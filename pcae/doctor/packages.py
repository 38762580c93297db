"""Versions of packages, and conflicts between them, from metadata alone. Only this module names packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

OURS = "pcae"
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")
COMPANIONS = ("torchaudio", "torchvision")
# Packages to show and check besides PCAE's requirements: a package that is installed for one may break another.
WATCHED = ("torch", *COMPANIONS, "mindspore", "onnx", *RUNTIMES, "transformers", "datasets", "jax", "jaxlib")


@dataclass(frozen=True)
class Finding:
    """A problem and advice about it, one sentence each."""

    problem: str
    advice: str


@dataclass(frozen=True)
class Package:
    """A distribution: version, requirements and extras, as in its metadata."""

    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def build(self) -> str:
        """The part of the version after "+", such as "cpu" or "cu126"; empty for wheels of PyPI."""
        return self.version.partition("+")[2]


def installed() -> dict[str, Package]:
    """Installed packages by normalised name. If a name occurs twice, it is the one that Python would import."""
    found: dict[str, Package] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:  # the rest of a half-removed package has neither
            extras = tuple(distribution.metadata.get_all("Provides-Extra") or ())
            package = Package(version, tuple(distribution.requires or ()), extras)
            found.setdefault(canonicalize_name(name), package)
    return found


def relevant(packages: Mapping[str, Package]) -> dict[str, str]:
    """Versions of PCAE, of its possible requirements and of the frameworks' companions, if they are installed."""
    ours = {canonicalize_name(requirement.name) for _, requirement in _ours(packages)}
    return {name: packages[name].version for name in sorted({OURS, *ours, *WATCHED}) if name in packages}


def findings(packages: Mapping[str, Package]) -> list[Finding]:
    """All conflicts between packages, the known ones first."""
    return [*_two_runtimes(packages), *_mixed_builds(packages), *_unmet(packages)]


def _two_runtimes(packages: Mapping[str, Package]) -> Iterator[Finding]:
    there = [name for name in RUNTIMES if name in packages]
    if len(there) > 1:
        yield Finding(
            f"{' and '.join(there)} are both installed: they overwrite each other's files",
            f'pip uninstall {" ".join(there)}, then pip install "pcae[ort]" or, for CUDA, "pcae[ort-gpu]"',
        )


def _mixed_builds(packages: Mapping[str, Package]) -> Iterator[Finding]:
    torch = packages.get("torch")
    for name in COMPANIONS:
        if torch and name in packages and packages[name].build != torch.build:
            yield Finding(
                f"{name} {packages[name].version} and torch {torch.version} are of different builds: importing {name} "
                "fails",
                f"install both by one command, as the selector on pytorch.org writes it, or pip uninstall {name}, "
                "which PCAE does not need",
            )


def _unmet(packages: Mapping[str, Package]) -> Iterator[Finding]:
    """Unmet requirements of PCAE, with the extras in use, and of the relevant packages."""
    asked = [(f"{OURS}[{extra}]" if extra else OURS, r) for extra, r in _ours(packages) if _in_use(extra, packages)]
    for name in sorted(relevant(packages).keys() - {OURS}):
        asked += [(name, requirement) for _, requirement in _parse(packages, name, [""])]
    seen = set()
    for owner, requirement in asked:
        name = canonicalize_name(requirement.name)
        there = packages.get(name)
        if there is not None and _satisfied(there.version, requirement):
            continue
        bare = f"{requirement.name}{requirement.specifier}"
        if (owner, bare) not in seen:
            seen.add((owner, bare))
            state = f"{name} {there.version} is installed" if there else "it is not installed"
            yield Finding(f"{owner} needs {bare}, and {state}", f'pip install "{bare}"')


def _satisfied(version: str, requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True  # nothing is known about it


def _in_use(extra: str, packages: Mapping[str, Package]) -> bool:
    """Whether all packages of an extra are installed, in any version. Only then their versions matter."""
    return not extra or all(canonicalize_name(r.name) in packages for e, r in _ours(packages) if e == extra)


def _ours(packages: Mapping[str, Package]) -> list[tuple[str, Requirement]]:
    """PCAE's requirements, each with its extra, or "" if it has none."""
    extras = packages[OURS].extras if OURS in packages else ()
    return list(_parse(packages, OURS, ["", *extras]))


def _parse(packages: Mapping[str, Package], owner: str, extras: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """(extra, requirement) of a package that apply here. A requirement without an extra appears with "" only."""
    for text in packages[owner].requires if owner in packages else ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield "", requirement
        else:
            yield from ((extra, requirement) for extra in extras if marker.evaluate({"extra": extra}))
