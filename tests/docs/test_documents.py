"""What the documents name exists (tests/docs/test_guides.py runs it), and what must not be in the repository is not."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import pcae_core
from pcae.cli.main import COMMANDS
from pcae_core.config import PretrainConfig
from pcae_core.config.finetune import FinetuneConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    """(document, code) of each fenced block."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(path.name, code) for path in DOCUMENTS for code in pattern.findall(path.read_text(encoding="utf-8"))]


def test_commands_in_documents_exist():
    named = {match for _, code in blocks("bash") for match in re.findall(r"^pcae (\w+)", code, re.MULTILINE)}
    assert named
    assert named <= set(COMMANDS)
    targets = {match for _, code in blocks("bash") for match in re.findall(r"^make (\w+)", code, re.MULTILINE)}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_messages_of_the_page_on_troubles_are_those_of_the_sources():
    files = [path for package in ("pcae", "pcae_core", "backends") for path in (ROOT / package).rglob("*.py")]
    sources = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in files))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+)\|", page, re.MULTILINE)
    parts = [part for row in rows for quoted in re.findall(r"`([^`]+)`", row) for part in quoted.split(" ... ")]
    assert len(parts) > 40
    assert [part for part in parts if part not in sources] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.yaml")), ids=lambda path: path.name)
def test_example_configurations_are_valid(path):
    kind = FinetuneConfig if path.stem.endswith("_finetune") else PretrainConfig
    assert kind.from_yaml(path).data is not None


def test_links_in_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("name", ["benchmarks", "performance", "learning"])
def test_pages_of_figures_are_short(name):
    lines = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"\|[-| ]+\|", line)]
    assert len(rules) == 1  # one table
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[rules[0] + 1 :]))
    assert 0 < len(rows) <= 10


def test_results_in_the_readme_are_those_of_their_pages():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]+\|([^|]+\|[^|]+)\| \[[^]]+\]\((docs/\w+\.md)\) \|$", readme, re.MULTILINE)
    assert len(rows) == 4
    for cells, page in rows:
        figures = re.findall(r"\d+\.\d+|\d+e-\d+", cells)
        assert figures
        assert set(figures) <= set(re.findall(r"\d+\.\d+|\d+e-\d+", (ROOT / page).read_text(encoding="utf-8"))), page


def test_the_workflow_calls_targets_that_exist():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
    commands = [step["run"].split() for step in steps if "run" in step]
    assert all(command[0] == "make" for command in commands)
    targets = {command[1] for command in commands} - {'"$TARGET"'}
    targets |= set(workflow["jobs"]["test"]["strategy"]["matrix"]["target"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")), ids=lambda path: path.name)
def test_issue_forms_are_forms(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    elements = [element for element in form["body"] if element["type"] != "markdown"]
    assert len({element["id"] for element in elements}) == len(elements)
    assert all(element["attributes"]["label"] for element in elements)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pcae_core.__version__


def test_no_path_of_a_machine_is_committed():
    found = subprocess.run(
        [
            "git",
            "grep",
            "-nIE",
            r"(^|[^A-Za-z.])/(home|root|work)/[a-z]",
            "--",
            ":!LICENSE",
            ":!tests/docs/test_documents.py",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""


def test_architecture_is_short_and_its_folders_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    table = text.partition("## Folders")[2].partition("## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    assert len(cells) >= 20
    for cell in cells:
        first, *others = re.findall(r"`([^`]+)`", cell)
        named = [first, *(name if "/" in name else f"{Path(first).parent}/{name}" for name in others)]
        for name in named:
            path = ROOT / name
            assert path.is_dir() if name.endswith("/") else path.is_file(), f"ARCHITECTURE.md: there is no {name}"
