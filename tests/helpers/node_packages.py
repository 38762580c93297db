"""Packages of npm for the tests: those that are installed beside a package.json, or by npm ci."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import patience
import pytest


def install(source: Path, folder: Path, package: str) -> None:
    """Put `node_modules` into `folder`, which holds a copy of the package.json and lock file of `source`.

    Skips the test where npm is missing or does not reach its packages.
    """
    if (source / "node_modules" / package).is_dir():
        (folder / "node_modules").symlink_to(source / "node_modules")
        return
    npm = shutil.which("npm") or pytest.skip("needs npm, which is not installed")
    command = [npm, "ci", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=patience.SECONDS)
    if done.returncode:
        pytest.skip(f"npm ci does not reach its packages: {done.stderr.strip().splitlines()[-1]}")
