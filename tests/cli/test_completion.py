"""Completion in a real shell, and that every flag of every command says what it is for."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from pcae.cli import completion
from pcae.cli import main as cli


@pytest.fixture(scope="module")
def script() -> str:
    return completion.script("bash")


def complete(script: str, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = f"COMP_WORDS=(pcae {' '.join(repr(word) for word in words)}); COMP_CWORD={len(words)}"
    code = f'{script}\n{line}; _tyro_pcae; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc"], input=code, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_flags_and_values(script):
    assert set(cli.COMMANDS) <= complete(script, "")
    assert complete(script, "pre") == {"predict", "pretrain"}
    assert complete(script, "pretrain", "--re") == {"--resume"}
    assert "--model.reduction.keep" in complete(script, "pretrain", "--model.re")
    assert complete(script, "pretrain", "--precision", "b") == {"bfloat16"}
    assert complete(script, "evaluate", "--pooling", "") == {"None", "mean", "cls"}


def test_every_flag_says_what_it_is_for(script):
    commands = ast.literal_eval(re.search(r"^COMPLETION_SPEC = (.*)$", script, re.MULTILINE)[1])["subcommands"]
    assert set(commands) == set(cli.COMMANDS)
    flags = [
        (name, *option["flags"], option["description"]) for name in commands for option in commands[name]["options"]
    ]
    explained = [re.sub(r"\((default: .*|required)\)$", "", flag[-1].rpartition("•")[2]).strip() for flag in flags]
    assert len(flags) > 100
    assert [flag for flag, text in zip(flags, explained, strict=True) if not text] == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(capsys, shell):
    assert cli.run(["completion", shell]) == 0
    assert "pretrain" in capsys.readouterr().out
