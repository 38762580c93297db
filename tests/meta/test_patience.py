"""The limits of the tests themselves: nothing fails because the machine is slow, and what hangs ends all the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import patience
import pytest
from fuzz import harness

TESTS = Path(__file__).parents[1]
POLLS = {"select"}
"""What is called again and again, so that its time is no limit."""


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def short_limits(text: str) -> list[int]:
    """Lines that give something a number of seconds by the clock, in place of `patience.SECONDS`."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and _called(node) not in POLLS:
            lines += [word.value.lineno for word in node.keywords if word.arg == "timeout" and _is_number(word.value)]
        pairs = ()
        if isinstance(node, ast.BinOp | ast.Compare):
            pairs = (node.left, *(node.comparators if isinstance(node, ast.Compare) else [node.right]))
        if any(map(_asks_the_clock, pairs)) and any(map(_is_number, pairs)):
            lines.append(node.lineno)
    return lines


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _asks_the_clock(node: ast.expr) -> bool:
    calls = (inner for inner in ast.walk(node) if isinstance(inner, ast.Call))
    return any(_called(call) in ("monotonic", "perf_counter", "time") for call in calls)


def test_limits_by_the_clock_are_found():
    assert short_limits("run(command, timeout=60)\nselect(timeout=1)\nrun(command, timeout=patience.SECONDS)") == [1]
    assert short_limits("end = time.monotonic() + 10\nx = monotonic() + SECONDS\nassert time.time() - x < 3") == [1, 3]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_has_a_short_limit(path):
    if path.name != Path(__file__).name:
        assert short_limits(path.read_text(encoding="utf-8")) == []


def test_time_that_others_take_does_not_count():
    """A process that waits for a second has computed for less; one that computes for a second has not."""
    found = []
    for act in ("time.sleep(1.1)", "while time.process_time() < 1.1: pass"):
        command = [sys.executable, "-c", f"import time\n{act}\nprint(flush=True); input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            found.append(patience.cpu_seconds(process.pid))
            process.communicate(b"\n", timeout=patience.SECONDS)
    waited, computed = found
    assert waited < 1 < computed
    assert patience.cpu_seconds(process.pid) == 0.0


def test_a_worker_that_computes_for_too_long_is_ended(tmp_path):
    worker = harness.Worker(tmp_path, seed=0)  # which imports what it needs, and says nothing
    with pytest.raises(harness.WorkerDiedError, match="no answer within 0 s of CPU time"):
        worker._hear(0.01)
    assert not worker.alive
    worker.close()


def test_what_waits_for_ever_is_ended(tmp_path, monkeypatch):
    worker = harness.Worker(tmp_path, seed=0)
    monkeypatch.setattr(patience, "SECONDS", 0.1)
    with pytest.raises(harness.WorkerDiedError, match="the process ended with -9: no answer"):
        worker._hear(harness.OTHERS_SECONDS)
    worker.close()
    with pytest.raises(AssertionError, match="waited for"):
        patience.wait_for(lambda: False)
