"""Packages: versions and what contradicts what, from metadata alone. The only part of the core that names packages."""

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
# Shown, and their requirements checked, beside what we require: what is installed for one package may break another.
WATCHED = ("torch", *COMPANIONS, "mindspore", "onnx", *RUNTIMES, "transformers", "datasets", "jax", "jaxlib")


@dataclass(frozen=True)
class Finding:
    """What is wrong, and what to do about it; a sentence each."""

    problem: str
    advice: str


@dataclass(frozen=True)
class Package:
    """A distribution: its version and, as its metadata writes them, what it requires and the extras that it has."""

    version: str
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def build(self) -> str:
        """What follows "+" in the version, such as "cpu" or "cu126"; empty for wheels of the usual index."""
        return self.version.partition("+")[2]


def installed() -> dict[str, Package]:
    """Packages by normalised name; of a name that is there twice, the one that Python would import."""
    found: dict[str, Package] = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
        if name and version:  # what is left of a half-removed package has neither
            extras = tuple(distribution.metadata.get_all("Provides-Extra") or ())
            package = Package(version, tuple(distribution.requires or ()), extras)
            found.setdefault(canonicalize_name(name), package)
    return found


def relevant(packages: Mapping[str, Package]) -> dict[str, str]:
    """Versions of PCAE, of what it may require, and of the frameworks' companions, as far as they are installed."""
    ours = {canonicalize_name(requirement.name) for _, requirement in _ours(packages)}
    return {name: packages[name].version for name in sorted({OURS, *ours, *WATCHED}) if name in packages}


def findings(packages: Mapping[str, Package]) -> list[Finding]:
    """Everything that contradicts something, the known traps first."""
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
    """What does not hold of our requirements (with the extras in use), and of those of the relevant packages."""
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
        return True  # nothing is known of it


def _in_use(extra: str, packages: Mapping[str, Package]) -> bool:
    """Whether all that an extra asks for is there, whatever its version: then its versions matter."""
    return not extra or all(canonicalize_name(r.name) in packages for e, r in _ours(packages) if e == extra)


def _ours(packages: Mapping[str, Package]) -> list[tuple[str, Requirement]]:
    """Our requirements, each with its extra; "" for those without."""
    extras = packages[OURS].extras if OURS in packages else ()
    return list(_parse(packages, OURS, ["", *extras]))


def _parse(packages: Mapping[str, Package], owner: str, extras: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """(extra, requirement) of a package that apply here; a requirement without an extra comes with "" only."""
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
