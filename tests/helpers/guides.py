"""The code blocks of a guide as one bash script, in order, against the real `pcae`.

A block runs unless a comment on the line before it says why not: <!-- not run: REASON -->
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import patience

BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```", re.S | re.M
)
# Guides are written for real models; the commands that train are given these in place of what they say.
SMALLER = {"--steps": "3", "--batch-size": "8", "--loader.workers": "0"}
PATIENT = (("--retry 60 ", f"--retry {patience.SECONDS:.0f} "),)
"""A reader waits a minute for a service, a test as long as it takes."""
CHECKPOINT = (("step_00001000", f"step_{int(SMALLER['--steps']):08}"),)
TRAINING = {"pretrain": SMALLER | {"--preset": "vit_micro_patch4_32"}, "finetune": SMALLER}


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    reason: str | None  # why it is not run


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [Block(found["language"], found["code"], found["reason"]) for found in BLOCK.finditer(text)]


def smaller(arguments: list[str]) -> list[str]:
    """`arguments` of pcae with a tiny model and few steps, where they start a training run."""
    if not arguments or arguments[0] not in TRAINING or "--resume" in arguments:
        return arguments
    kept, given = list(arguments), TRAINING[arguments[0]]
    for flag in set(given) & set(kept):
        del kept[(at := kept.index(flag)) : at + 2]
    return kept + [word for pair in given.items() for word in pair]


def script(path: Path, port: int) -> str:
    """All blocks that run; each is announced, so that a failure shows where."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, block in enumerate(blocks(path), 1):
        if block.reason is None:
            code = block.code
            for old, new in ((":8000", f":{port}"), ("--port 8000", f"--port {port}"), *CHECKPOINT, *PATIENT):
                code = code.replace(old, new)
            whole = code if block.language == "bash" else f"python - <<'END OF BLOCK'\n{code}\nEND OF BLOCK"
            lines += [f"echo '### block {number} of {path.name}'", whole]
    return "\n".join(lines)


def run(path: Path, folder: Path) -> str:
    """Run a guide in `folder` as a reader would; returns what it printed. Raises AssertionError when a block fails."""
    programs = folder.parent / f"{folder.name}-bin"
    programs.mkdir()
    for name, command in (("python", [sys.executable]), ("pcae", [sys.executable, __file__])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "home").mkdir()
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(programs / "home"),
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shell = subprocess.Popen(
        ["bash", "--norc", "-c", script(path, port)],
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that a service that a block has started ends with it
    )
    try:
        printed, _ = shell.communicate(timeout=patience.SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, printed[-4000:]
    return printed


if __name__ == "__main__":
    from pcae.cli.main import main

    sys.argv[1:] = smaller(sys.argv[1:])
    main()
