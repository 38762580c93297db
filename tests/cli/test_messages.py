"""Messages name flags of the command that shows them: every flag in the sources' texts is looked up in its help."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pcae.cli import main as cli

ROOT = Path(__file__).parents[2]
FLAG = re.compile(r"--[a-z][a-z0-9.-]*[a-z0-9](?!\w)")
SETTING = re.compile(r"(?<![\w.-])loader\.[a-z_]+")
COMMAND = re.compile(r"pcae (\w+)|\b(export|fine-tune)(?:ed)? (?:it )?(?:again )?with")
"""What makes the flags after it another command's."""

SHOWN_BY = {
    "pcae_core/training": ("pretrain", "finetune"),
    "pcae_core/training/pretrain.py": ("pretrain",),
    "pcae_core/training/finetune.py": ("finetune",),
    "pcae_core/evaluation": ("evaluate",),
    "pcae_core/storage/run.py": ("pretrain", "finetune"),
    "pcae_core/config/data.py": ("pretrain", "finetune", "convert"),
    "pcae_core/data/classes.py": ("finetune", "evaluate", "report"),
    "pcae_core/convert": ("convert",),
    "pcae/report/encoders.py": ("visualize",),
    "pcae/report/page.py": ("report", "visualize"),
    "pcae/report/pictures.py": ("visualize",),
    "pcae/report/kept_by_step.py": ("report",),
    "backends/pcae_onnx/export.py": ("export",),
    "backends/pcae_onnx/serving": ("serve",),
    "backends/pcae_torch/trainer.py": ("pretrain", "finetune"),
    "backends": ("pretrain", "finetune", "evaluate"),
}
"""The commands in which the texts of a file, or of all files in a folder, are seen; of `pcae/cli/X.py` it is X."""

NO_FLAGS_OF_OURS = {
    "pcae/doctor/devices.py": "nvidia-smi's",
    "pcae_core/data/fetching.py": "npm's, and of pcae data",
    "pcae/cli/completion.py": "tyro's",
    "pcae/cli/main.py": "of pcae itself",
    "pcae/report/charts.py": "names of colours in CSS",
    "pcae/report/page.py": "names of colours in CSS",
}


def texts(path: Path) -> Iterator[str]:
    """The strings of a module, docstrings left out; `{}` for what an f-string puts in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(value.value) if isinstance(value, ast.Constant) else "{}" for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def named(text: str, shown_by: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Flag by flag, and the commands that must have it."""
    for part in re.split(r"\n\s*\n|\n(?=  pcae )|[.;]\s", text):
        for flag in (*FLAG.finditer(part), *SETTING.finditer(part)):
            before = list(COMMAND.finditer(part, 0, flag.start()))
            one = before[-1] if before else None
            names = shown_by if one is None else ((one[1] or one[2]).replace("-", ""),)
            written = flag.group() if flag.re is FLAG else f"--{flag.group().replace('_', '-')}"
            yield from ((written, name) for name in names)


def shown_by(file: str) -> tuple[str, ...]:
    if file.startswith("pcae/cli/"):
        return (Path(file).stem,) if Path(file).stem in cli.COMMANDS else ()
    return next((SHOWN_BY[key] for key in sorted(SHOWN_BY, reverse=True) if file.startswith(key)), ())


def claims() -> set[tuple[str, str, str]]:
    """File, flag, and a command that must have it."""
    files = [path for top in ("pcae", "pcae_core", "backends") for path in sorted((ROOT / top).rglob("*.py"))]
    found = set()
    for path in files:
        file = path.relative_to(ROOT).as_posix()
        for text in texts(path) if file not in NO_FLAGS_OF_OURS else ():
            if FLAG.search(text) or SETTING.search(text):
                assert shown_by(file) or COMMAND.search(text), f"say in SHOWN_BY where {file} is seen: {text}"
            found |= {(file, flag, command) for flag, command in named(text, shown_by(file))}
    return found


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Those at the beginning of a line of its help."""
    with pytest.raises(SystemExit):
        cli.run([command, "--help"])
    lines = re.findall(r"^[│ ]+(-.*)", capsys.readouterr().out, re.MULTILINE)
    return {flag for line in lines for flag in FLAG.findall(re.split(r"\s{2,}", line)[0])}


def test_every_flag_in_a_message_is_one_of_the_command_that_shows_it(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    wanted = claims()
    assert len(wanted) > 80
    real = {command: flags_of(command, capsys) for command in {command for *_, command in wanted}}
    assert {"--keep", "--data", "--backend"} <= real["evaluate"]
    assert [claim for claim in sorted(wanted) if claim[1] not in real[claim[2]]] == []


def test_the_check_sees_a_flag_that_is_not_there():
    assert list(named("use --nothing here", ("predict",))) == [("--nothing", "predict")]
    assert list(named("loader.crop_scale is small", ("convert",))) == [("--loader.crop-scale", "convert")]
    assert list(named("fixed; export with --dynamic-keep", ("predict",))) == [("--dynamic-keep", "export")]
    assert list(named("go on with: pcae {} --resume", ("pretrain",))) == [("--resume", "pretrain")]
