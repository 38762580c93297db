"""How long tests wait: as long as it takes, since other programs may want the machine too, and an hour for what hangs.

What is to be quick is held to the CPU time that it takes itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 3600.0


def wait_for(condition: Callable[[], object]) -> None:
    """Until the condition holds; AssertionError after an hour."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {SECONDS:.0f} s"
        time.sleep(0.005)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, in all its threads; nothing once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
