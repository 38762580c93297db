"""How contenders of the speed benchmarks take turns, and how rounds become ratios."""

import argparse
import functools
import os
import sys
from pathlib import Path

import contenders
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: nothing of that folder may hide a package

import interleave


def test_ratios_are_of_rounds():
    order = []
    calls = {name: functools.partial(order.append, name) for name in "abc"}
    times = interleave.interleaved(calls, argparse.Namespace(rounds=3, cpu_time=False, device="cpu"))
    assert [len(values) for values in times.values()] == [3, 3, 3]
    assert "".join(order) == "abcbcacababc"  # the first round warms up
    found = interleave.ratio({"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 4.0]}, "a", "b")
    assert found == interleave.Spread(2.0, 1.0, 3.0)


def test_contenders_apart_take_turns_in_processes_of_their_own(tmp_path):
    makers = {name: functools.partial(contenders.noting, tmp_path / name) for name in "ab"}
    times = interleave.apart(makers, argparse.Namespace(rounds=2, cpu_time=False, device="cpu", threads=1))
    assert all(len(seconds) == 2 and min(seconds) >= 0.01 for seconds in times.values())
    calls = [(tmp_path / name).read_text().split() for name in "ab"]
    assert [len(set(processes)) for processes in calls] == [1, 1]
    assert [len(processes) for processes in calls] == [3, 3]
    assert len({os.getpid(), int(calls[0][0]), int(calls[1][0])}) == 3


def test_a_contender_that_dies_is_named():
    with pytest.raises(RuntimeError, match="the process of b has ended"):
        interleave.apart({"b": contenders.dying}, argparse.Namespace(rounds=1, cpu_time=False, device="cpu", threads=1))
