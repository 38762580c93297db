"""The floors of the house: `make lint` refuses an import of what stands above."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSIDE = "Inside the core: training, evaluation, data and files, settings"
FOLDERS = ("pcae", "pcae_core", "backends", "conformance")


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of pyproject.toml, held against the packages below `root`."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    paths = os.pathsep.join(map(str, (root, root / "backends", root / "conformance")))
    return subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("pcae_core/cost.py", "import pcae.report", "A package imports only what stands below it"),
        ("pcae_core/cost.py", "import pcae_numpy", "A package imports only what stands below it"),
        ("pcae_core/cost.py", "def f():\n    import pcae_conformance", "A package imports only what stands below it"),
        ("backends/pcae_onnx/info.py", "import pcae.report", "A package imports only what stands below it"),
        ("backends/pcae_torch/ops.py", "import pcae_numpy", "A package imports only what stands below it"),
        ("conformance/pcae_conformance/runner.py", "import pcae", "A package imports only what stands below it"),
        ("pcae_core/cost.py", "def f():\n    import torch", "pcae_core imports no framework"),
        ("pcae_core/config/model.py", "import pcae_core.data.loader", INSIDE),
        ("pcae_core/config/run.py", "def f():\n    import pcae_core.training.loop", INSIDE),
        ("pcae_core/schedule.py", "import pcae_core.storage.archives", INSIDE),
        ("pcae_core/evaluation/probes.py", "import pcae_core.training.resume", INSIDE),
    ],
)
def test_a_planted_import_is_refused(tmp_path, file, line, broken):
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{broken} BROKEN" in done.stdout
    assert line.split()[-1] in done.stdout


def test_the_packages_keep_the_contracts():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
