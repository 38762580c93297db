"""Devices of the machine, and the devices that each backend can compute on. A process of its own tries each backend."""

from __future__ import annotations

import json
import shutil
import subprocess  # nosec B404 # runs Python and nvidia-smi with lists, no shell
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcae.doctor.packages import Finding
from pcae_core.registry import BackendInfo

# Tries the devices, best first, until one has computed something. The last line has the outcome of each try.
PROBE = """
import json, sys
import numpy as np
from pcae_core import PcaeError, registry
tried = {}
for device in sys.argv[2:]:
    try:
        backend = registry.create(sys.argv[1], device=device)
        backend.to_numpy(backend.similarity_scores(backend.asarray(np.eye(4, dtype="float32")[None])))
        tried[device] = None
        break
    except Exception as error:
        kind = "" if isinstance(error, PcaeError) else f"{type(error).__name__}: "
        tried[device] = " ".join(f"{kind}{error}".split())
print("\\n" + json.dumps(tried), flush=True)
"""

# Kind of accelerator -> name of the device in backends.
ACCELERATORS = {"NVIDIA GPU": "cuda", "Ascend NPU": "ascend"}


@dataclass(frozen=True)
class Probe:
    """Outcome of trying a backend: the device that computed, and the problems of the devices before it.

    Attributes:
        device: name of the device; None if no device computed.
        problems: device -> problem. The key "" is for a process without an answer.
    """

    device: str | None
    problems: Mapping[str, str]


def accelerators() -> dict[str, list[str]]:
    """Kind -> names of the accelerators of the system, whether or not a framework can use them."""
    found = {"NVIDIA GPU": _nvidia(), "Ascend NPU": sorted(map(str, Path("/dev").glob("davinci[0-9]*")))}
    return {kind: names for kind, names in found.items() if names}


def _nvidia() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # nosec B603 # our own words
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def probe(name: str, devices: Sequence[str], seconds: float) -> Probe:
    """Create a backend in another process, and compute on the first of `devices` that works, within a time limit."""
    command = [sys.executable, "-P", "-c", PROBE, name, *devices]  # -P: no module of the working directory
    try:
        done = subprocess.run(  # nosec B603 # our own program; the names are those of entry points
            command, capture_output=True, text=True, timeout=seconds, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Probe(None, {"": f"it did not answer within {seconds:g} s"})
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines()
        return Probe(None, {"": f"its process ended with {done.returncode}" + (f": {said[-1]}" if said else "")})
    tried: dict[str, str | None] = json.loads(lines[-1])
    working = next((device for device, problem in tried.items() if problem is None), None)
    return Probe(working, {device: problem for device, problem in tried.items() if problem is not None})


def findings(name: str, info: BackendInfo, found: Probe, there: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Findings about an installed backend that computes on no device, or not on an accelerator of the machine."""
    if found.device is None:
        reasons = "; ".join(dict.fromkeys(found.problems.values()))
        return [Finding(f"the {name} backend is installed and does not work: {reasons}", f"reinstall: {info.install}")]
    unused = [(kind, device) for kind, device in ACCELERATORS.items() if kind in there and device in found.problems]
    return [
        Finding(
            f"this machine has an {kind}, and the {name} backend cannot use it: {found.problems[device]}",
            f"install a build for {device} in place of this one, and a driver that it accepts",
        )
        for kind, device in unused
    ]
