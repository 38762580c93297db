"""What features PCAE learns on small data at equal CPU seconds, next to its variants, MAE and supervised training.

    pcae data fashion-mnist data/fashion-mnist; pcae data emoji data/emoji; pcae data cifar10 data/cifar10
    python -m benchmarks.learning [--parts trials comparison ablations] [--sets ...] [--budgets 60 180 600] ...

`plan.py` says what is run; options choose parts of it. `--parts` without a name only prints the tables of what is in
the file. Results are appended to it, one line each, and not run again, so an interrupted benchmark goes on. Experiments
compute on one thread. How many steps fit into a budget is measured first, for each method against PCAE's recipe in
alternation, so that other work on the machine hits both alike.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when PyTorch is imported, below

from benchmarks.learning import plan
from benchmarks.learning.experiment import run
from benchmarks.learning.methods import METHODS
from benchmarks.learning.plan import ABLATED, ABLATIONS, COMPARED, RATES, Experiment
from benchmarks.learning.results import Results
from benchmarks.learning.sets import SETS
from benchmarks.learning.table import tables
from benchmarks.learning.training import configure, measure_step

from pcae_core.config import PretrainConfig


def trials(options: argparse.Namespace, results: Results) -> list[Experiment]:
    """Each method with each of the rates."""
    found: list[Experiment] = []
    for data in options.sets:
        compared = {name for methods in COMPARED[data].values() for name in methods}
        names = [name for name in options.methods if name in compared and METHODS[name].tried]
        found += [plan.trial(data, name, rate) for name in names for rate in RATES]
    return found


def comparison(options: argparse.Namespace, results: Results) -> list[Experiment]:
    """Each method with its chosen settings, on the test split."""
    found: list[Experiment] = []
    for data in options.sets:
        for budget, seed in itertools.product(_budgets(COMPARED[data], options), options.seeds):
            for name in (name for name in COMPARED[data][budget] if name in options.methods):
                method = METHODS[name]
                settings = results.chosen(data, method.clock or name) if method.trained else {}
                found.append(Experiment(data, name, "test", budget, seed, settings))
    return found


def ablations(options: argparse.Namespace, results: Results) -> list[Experiment]:
    """A method with its chosen settings, then with others; settings that come to the same are run once."""
    found: dict[tuple[str, int, PretrainConfig], Experiment] = {}
    for (data, method), planned in ABLATED.items():
        if data not in options.sets or method not in options.methods:
            continue
        base = results.chosen(data, method)
        for budget, seed in itertools.product(_budgets(planned, options), options.seeds):
            rows = [row for group in planned[budget] if group in options.ablations for row in ABLATIONS[group]]
            for row in ({}, *rows) if rows else ():
                experiment = plan.ablation(data, method, base, row, budget, seed)
                found.setdefault((method, budget, configure(experiment, 1000)), experiment)
    return list(found.values())


def _budgets(planned: Iterable[int], options: argparse.Namespace) -> list[int]:
    return [budget for budget in planned if budget in (0, *options.budgets)]


PARTS = {"trials": trials, "comparison": comparison, "ablations": ablations}


def measure(experiments: Sequence[Experiment], results: Results, processes: int) -> None:
    """Run those that are not in the results yet."""
    missing = [experiment for experiment in experiments if experiment not in results.runs]
    for experiment in missing:
        if not results.is_timed(experiment):
            results.add_step(experiment, *measure_step(plan.cost(experiment)))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(run, experiment, results.steps(experiment)): experiment for experiment in missing}
        for count, job in enumerate(as_completed(jobs), 1):
            results.add_run(jobs[job], job.result())
            scores = {name: job.result()[name] for name in ("knn", "linear", "rank")}
            print(f"{count}/{len(jobs)} {jobs[job]} {scores}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--budgets", nargs="+", type=int, default=(60, 180, 600), help="CPU seconds")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ablations", nargs="+", choices=ABLATIONS, default=list(ABLATIONS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("runs/learning.jsonl"))
    return parser.parse_args()


def main() -> None:
    options = parse()
    results = Results(options.results)
    for part in options.parts:
        measure(PARTS[part](options, results), results, options.processes)
    print(tables(results))


if __name__ == "__main__":
    main()
