"""What users get: a public API that changes only knowingly, and a wheel that is complete and reproducible."""

from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import public_api
import pytest

ROOT = Path(__file__).parents[2]


def test_public_api_is_as_recorded():
    recorded = public_api.RECORDED.read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(recorded, public_api.lines(), "recorded", "now", lineterm="", n=0))
    assert not changes, (
        "the public API has changed; if it should (docs/compatibility.md says how), run `make api`, commit "
        "tests/public_api.txt and name the change in CHANGELOG.md:\n" + "\n".join(changes)
    )


def test_a_changed_signature_shows(monkeypatch, tmp_path):
    shutil.copytree(ROOT / "pcae_core", tmp_path / "pcae_core", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "pcae_core" / "registry.py"
    file.write_text(file.read_text().replace("def use(name: str,", "def use(name: str, strict: bool = False,"))
    monkeypatch.setattr(public_api, "SOURCES", [tmp_path])
    monkeypatch.setattr(public_api, "NAMES", {"pcae_core": ("use",)})
    assert public_api.lines() == ["pcae_core.use(name: str, strict: bool = False, **options: Any) -> Backend"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    """Two, of copies in other folders, with other times and permissions of files."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    built = []
    for place, seconds, mode in (("one", 1_700_000_000, 0o644), ("another", 1_750_000_000, 0o600)):
        copy = tmp_path_factory.mktemp(place)
        for name in filter(None, tracked.split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
            (copy / name).chmod(mode)
            os.utime(copy / name, (seconds, seconds))
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
        built += (copy / "dist").glob("*.whl")
    return built


def test_wheels_are_reproducible(wheels):
    first, second = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    assert first == second


def test_types_and_recorded_cases_travel(wheels):
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    with zipfile.ZipFile(wheels[0]) as archive:
        names = set(archive.namelist())
    assert {f"{Path(package).name}/py.typed" for package in packages["packages"]} <= names
    assert any(name.startswith("pcae_conformance/golden/") for name in names)
    sources = {
        path.relative_to(ROOT).as_posix() for top in ("pcae", "pcae_core") for path in (ROOT / top).rglob("*.py")
    }
    assert sources <= names
