"""The worked example of docs/writing-a-backend.md, installed in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import patience

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "jax_backend"
# The suite has XLA compile 1700 graphs that run once: half of the time.
QUICK_COMPILATION = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def constraints() -> str:
    """The project's exact versions, save where the example has its own."""
    own = (EXAMPLE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = {line.partition("==")[0] for line in own}
    shared = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return "\n".join([*own, *(line for line in shared if line.partition("==")[0] not in named)])


def run(*command: object) -> str:
    environment = os.environ | {"XLA_FLAGS": " ".join(QUICK_COMPILATION)}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=patience.SECONDS, env=environment
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_example_is_installed_found_and_conforms(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    (tmp_path / "constraints.txt").write_text(constraints())
    run(
        programs / "pip", "install", "--quiet", "--constraint", tmp_path / "constraints.txt",
        f"{ROOT}[conformance]", EXAMPLE,
    )  # fmt: skip
    (row,) = [line for line in run(programs / "pcae", "backends").splitlines() if line.startswith("│ jax ")]
    assert "0.10.2" in row
    assert "not installed" not in row
    report = run(programs / "pcae", "conformance", "jax", "--max-examples", 1)
    assert "jax conforms: 41 passed, 51 not run" in report
