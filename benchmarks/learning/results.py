"""The file of results: a JSON object a line, appended, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.learning.plan import RATES, Experiment, Settings, cost, trial

Result = dict[str, Any]


class Results:
    """What has been measured.

    Attributes:
        runs: experiment -> its result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: dict[Experiment, Result] = {}
        self._seconds: dict[str, float] = {}  # set -> CPU seconds of a step of its recipe, as measured first
        self._ratios: dict[Experiment, float] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        experiment = Experiment(**entry["experiment"])
        if "ratio" in entry:
            self._seconds.setdefault(experiment.data, entry["seconds"])
            self._ratios.setdefault(experiment, entry["ratio"])
        else:
            self.runs[experiment] = entry["result"]

    def _add(self, experiment: Experiment, **values: Any) -> None:
        entry = {"experiment": experiment.to_dict(), **values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._take(entry)

    def add_run(self, experiment: Experiment, result: Result) -> None:
        """What an experiment gave."""
        self._add(experiment, result=result)

    def add_step(self, experiment: Experiment, seconds: float, ratio: float) -> None:
        """CPU seconds of a step of the set's recipe at that moment, and this experiment's step in units of that."""
        self._add(cost(experiment), seconds=round(seconds, 5), ratio=round(ratio, 4))

    def is_timed(self, experiment: Experiment) -> bool:
        """Whether it is known how many steps fit into the experiment's budget."""
        return not experiment.budget or cost(experiment) in self._ratios

    def steps(self, experiment: Experiment) -> int:
        """That fit into the budget; 0 for what is not trained."""
        if not experiment.budget:
            return 0
        return max(1, round(experiment.budget / self._seconds[experiment.data] / self._ratios[cost(experiment)]))

    def chosen(self, data: str, method: str) -> Settings:
        """Those of the method's best trial, by the sum of k-NN and linear probe. Raises KeyError without trials."""

        def score(settings: Settings) -> float:
            result = self.runs[trial(data, method, settings)]
            return float(result["knn"] + result["linear"])

        return max(RATES, key=score)
