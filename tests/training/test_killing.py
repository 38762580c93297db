"""A few deaths; benchmarks/faults.py dies a hundred times."""

from __future__ import annotations

import killing


def test_killed_runs_lose_nothing_and_end_the_same(tmp_path):
    outcome = killing.kill_runs(tmp_path, kills=5, seed=17)  # one moment in the first half, before any run has ended
    assert outcome.deaths.keys() == {"operation", "moment"}
