"""`pcae doctor`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pcae.cli.parsing import parse
from pcae_core.errors import ConfigError, EnvironmentConflictError

if TYPE_CHECKING:
    from pcae.doctor.devices import Probe
    from pcae_core.registry import BackendInfo

DESCRIPTION = """Report installed packages, the devices that each backend computes on, packages that do not work
together, and how to repair them. Each framework is tried in its own process, so a broken one does not stop the command.

Exit code 0: no problem found. Exit code 1: problems found.

Examples:
  pcae doctor
  pcae doctor --timeout 300     # for machines on which a framework takes minutes to start"""

LONGEST = 86_400  # a day


@dataclass(frozen=True)
class Arguments:
    """Flags of `pcae doctor`.

    Attributes:
        timeout: seconds that each backend may take to start and compute.
    """

    timeout: float = 60.0


def main(arguments: Sequence[str]) -> None:
    """Parse, inspect, print. Raises EnvironmentConflictError when there is a problem."""
    chosen = parse(Arguments, "doctor", arguments, description=DESCRIPTION)
    if not 0 < chosen.timeout < LONGEST:
        raise ConfigError(f"--timeout must be more than 0 seconds and less than {LONGEST}, not {chosen.timeout:g}")
    from pcae.doctor import devices, packages
    from pcae_core import registry

    there = packages.installed()
    print(f"Python {platform.python_version()} on {platform.platform()}")
    _list("packages", packages.relevant(there))
    accelerators = devices.accelerators()
    _list("accelerators", {kind: "; ".join(names) for kind, names in accelerators.items()} or {"none": "found"})

    announced = registry.available()
    probes = {
        name: devices.probe(name, info.capabilities.devices, chosen.timeout)
        for name, info in announced.items()
        if info.installed and info.capabilities
    }
    _list("backends", {name: _state(info, probes.get(name)) for name, info in announced.items()})
    found = packages.findings(there)
    for name, result in probes.items():
        found += devices.findings(name, announced[name], result, accelerators)
    if not found:
        print("\nno problems found")
        return
    for number, finding in enumerate(found, 1):
        print(f"\n{number}. {finding.problem}\n   {finding.advice}")
    raise EnvironmentConflictError(f"found {len(found)} problem{'s' if len(found) > 1 else ''}, listed above")


def _list(title: str, rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    print("\n".join(["", title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]))


def _state(info: BackendInfo, found: Probe | None) -> str:
    """One line about a backend."""
    if found is None:
        return (
            f"not installed ({info.problem}): {info.install}" if info.install else f"cannot be loaded: {info.problem}"
        )
    version = info.version or "installed"
    if found.device is None:
        return f"{version}, broken: see below"
    others = f", not on {' or '.join(found.problems)}" if found.problems else ""
    return f"{version}, computes on {found.device}{others}"
