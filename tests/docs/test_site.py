"""The documentation site builds without a warning, and its pages fetch nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import patience
import pytest

pytest.importorskip("material", reason='the site needs pip install "pcae[docs]"')
ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"""<(?:script|img|link|iframe)[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def test_the_site_builds_and_is_complete(tmp_path):
    # Not --quiet, which hides warnings from --strict
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience.SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.glob("*.html"))
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= {page.name for page in pages}
    assert [(page.name, LOADED.findall(page.read_text())) for page in pages if LOADED.search(page.read_text())] == []
    assert 'id="pcae_core.Backend.encode"' in (tmp_path / "api.html").read_text()
