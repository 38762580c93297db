"""Short files: a file of the product has at most 300 lines, or its docstring says why it has more."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("pcae", "pcae_core", "backends", "conformance")
LONGEST = 300
REASON = "Longer than 300 lines:"


def too_long(path: Path) -> bool:
    """Whether a module has more lines than it may, and gives no reason."""
    text = path.read_text(encoding="utf-8")
    return len(text.splitlines()) > LONGEST and REASON not in (ast.get_docstring(ast.parse(text)) or "")


def test_files_of_the_product_are_short():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    found = [str(path.relative_to(ROOT)) for path in files if too_long(path)]
    assert not found, f"more than {LONGEST} lines, and no reason ({REASON} ...) in the docstring: {', '.join(found)}"


@pytest.mark.parametrize(
    ("docstring", "lines", "refused"),
    [
        ("What it is for.", 300, False),
        ("What it is for.", 301, True),
        ("A table.\n\nLonger than 300 lines: one row a layout.", 303, False),
    ],
)
def test_a_planted_long_file_is_found(tmp_path, docstring, lines, refused):
    head = f'"""{docstring}"""\n'
    path = tmp_path / "module.py"
    path.write_text(head + "x = 1\n" * (lines - head.count("\n")))
    assert too_long(path) == refused
