"""The results as Markdown tables: means over seeds, with standard deviations where there are several."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.learning.methods import METHODS
from benchmarks.learning.plan import (
    ABLATED,
    ABLATIONS,
    RATES,
    TRIAL_SEED,
    Experiment,
    Settings,
    ablation,
    trial,
)
from benchmarks.learning.results import Result, Results
from benchmarks.learning.sets import SETS

Row = Sequence[str]


_BEGIN, _END = "<!-- tables -->\n", "<!-- end of the tables -->\n"


def write(path: Path, text: str) -> None:
    """Put `text` between the two marks in a document. Raises ValueError when it has none."""
    before, mark, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    if not mark or _END not in rest:
        raise ValueError(f"{path} needs the lines {_BEGIN.strip()} and {_END.strip()}")
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def tables(results: Results) -> str:
    """Everything that has been run."""
    sections = [section(data, results) for section in (_trials, _comparison, _health, _ablations) for data in SETS]
    return "\n\n".join(text for text in sections if text) + "\n"


def _trials(data: str, results: Results) -> str:
    rows = []
    for method in METHODS:
        found = [results.runs.get(trial(data, method, settings)) for settings in RATES]
        if all(found):
            rate = results.chosen(data, method)["base_learning_rate"]
            scores = [f"{result['knn']:.1f}, {result['linear']:.1f}" for result in found if result]
            rows.append([method, *scores, _rate(rate)])
    heads = ["method", *(f"rate {_rate(settings['base_learning_rate'])}" for settings in RATES), "chosen"]
    return _table(f"Trials on {data}, validation split: k-NN, linear probe", heads, rows)


def _rate(base: float) -> str:
    """The peak rate at a batch of 64."""
    return f"{base * 64 / 256:.1e}".replace("e-0", "e-")


def _comparison(data: str, results: Results) -> str:
    budgets = sorted({run.budget for run in results.runs if _is_compared(run, data)})
    parts = []
    for budget in budgets:
        rows = [_scores(method, found) for method, found in _by_method(data, budget, results)]
        title = f"{data}, {budget} CPU seconds, test split" if budget else f"{data}, untrained, test split"
        heads = ["method", "seeds", "steps", "CPU s", "k-NN", "linear", "effective rank", "loss ratio", "its head"]
        parts.append(_table(title, heads, rows))
    return "\n\n".join(parts)


def _is_compared(run: Experiment, data: str) -> bool:
    return run.split == "test" and run.data == data


def _by_method(data: str, budget: int, results: Results) -> Iterable[tuple[str, list[Result]]]:
    for method in METHODS:
        runs = results.runs.items()
        found = [r for e, r in runs if _is_compared(e, data) and (e.budget, e.method) == (budget, method)]
        if found:
            yield method, found


def _scores(name: str, found: list[Result]) -> Row:
    return [
        name,
        str(len(found)),
        *(_mean(found, key, 0) for key in ("steps", "cpu_seconds")),
        *(_mean(found, key, 1) for key in ("knn", "linear", "rank")),
        _mean(found, "loss_ratio", 2),
        _mean(found, "head", 1),
    ]


def _mean(found: list[Result], key: str, digits: int) -> str:
    values = [result[key] for result in found if result.get(key) is not None]
    if not values:
        return ""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {spread:.{digits}f}" if round(spread, digits) else mean


def _health(data: str, results: Results) -> str:
    """What is watched during the comparison's runs."""
    rows = []
    for budget in sorted({run.budget for run in results.runs if _is_compared(run, data) and run.budget}):
        for method, found in _by_method(data, budget, results):
            moments = zip(*(result["health"] for result in found), strict=True)
            scores = [f"{_mean(list(at), 'knn', 1)}; {_mean(list(at), 'rank', 1)}" for at in moments]
            rows.append([f"{method}, {budget} s", *scores])
    heads = ["method", "after 10% of the steps", "50%", "100%"]
    return _table(f"{data}: k-NN; effective rank of the teacher (of the encoder where there is none)", heads, rows)


def _ablations(data: str, results: Results) -> str:
    heads = ["with", "seeds", "steps", "CPU s", "k-NN", "linear", "effective rank", "loss ratio"]
    parts = []
    for (ablated, method), planned in ABLATED.items():
        for budget in planned if ablated == data else ():
            title = f"Ablations of {method} on {data}, {budget} CPU seconds, validation split"
            parts.append(_table(title, heads, _ablation_rows(data, method, budget, results)))
    return "\n\n".join(part for part in parts if part)


def _ablation_rows(data: str, method: str, budget: int, results: Results) -> list[Row]:
    if not all(trial(data, method, settings) in results.runs for settings in RATES):
        return []
    base, rows = results.chosen(data, method), []
    for settings in ({}, *(settings for group in ABLATIONS.values() for settings in group)):
        same = _same(ablation(data, method, base, settings, budget, 0))
        found = [result for run, result in results.runs.items() if same(run)]
        if found:
            rows.append(_scores(_label(settings) or "as chosen in the trials", found)[:-1])
    return rows


def _same(wanted: Experiment) -> Callable[[Experiment], bool]:
    """Tells whether a run differs from `wanted` only in the seed, and is no trial."""

    def same(run: Experiment) -> bool:
        return run.seed != TRIAL_SEED and run.to_dict() | {"seed": wanted.seed} == wanted.to_dict()

    return same


def _label(settings: Settings) -> str:
    names = []
    for name, value in settings.items():
        if isinstance(value, dict):
            names.append(_label(value))
        elif name == "base_learning_rate":
            names.append(f"rate {_rate(value)}")
        else:
            names.append(f"{name} {value}")
    return ", ".join(names)


def _table(title: str, heads: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    used = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    lines = [heads, ["---"] * len(heads), *rows]
    return f"{title}:\n\n" + "\n".join("| " + " | ".join(line[i] for i in used) + " |" for line in lines)
