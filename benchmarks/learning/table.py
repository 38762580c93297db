"""The results as Markdown tables: means over seeds, with standard deviations where there are several.

    python -m benchmarks.learning.table     # from results.jsonl: RESULTS.md, and the table in docs/learning.md

Differences of two means have a star when they are larger than the larger standard deviation of the two, and of one sign
with each seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.learning.methods import METHODS, PEER, REFERENCE, SMALL_DATA, SMALL_PEER
from benchmarks.learning.plan import (
    ABLATED,
    ABLATIONS,
    COMPARED,
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
Seeds = Mapping[int, Result]
"""Results of the same experiment by seed."""

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "docs" / "learning.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of the table -->\n"
_HEADER = """# Results of the learning benchmark

`.venv/bin/python -m benchmarks.learning.table` makes this file from `results.jsonl`, and a test compares the two.
[docs/learning.md](../../docs/learning.md) has the answers. [The log](../log/learning.md) says how the figures were
measured and what they show.

"""


_ALIKE = {"fashion-mnist": (SMALL_DATA, SMALL_PEER)}
"""Set -> PCAE and MAE with the same batch and decoder; on the other sets, those with the first settings."""


def document(results: Results) -> str:
    """The whole of RESULTS.md."""
    return _HEADER + tables(results)


def against_mae(results: Results) -> str:
    """The table of docs/learning.md: PCAE and MAE with the same batch and decoder."""
    rows = []
    for data in SETS:
        ours, theirs = _ALIKE.get(data, (REFERENCE, PEER))
        for budget in (budget for budget in COMPARED[data] if budget):
            found = _by_method(data, budget, results)
            rows.append([data, str(budget), *_duel(found[ours], found[theirs])])
    heads = [f"{probe}: {column}" for probe in ("k-NN", "linear") for column in ("PCAE", "MAE", "PCAE - MAE")]
    return _grid(["images", "CPU seconds", *heads], rows) + "\n"


def _duel(ours: Seeds, theirs: Seeds) -> Row:
    cells: list[str] = []
    for key in ("knn", "linear"):
        means = (statistics.mean(result[key] for result in seeds.values()) for seeds in (ours, theirs))
        cells += [*(f"{mean:.1f}" for mean in means), _difference(ours, theirs, key)]
    return cells


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
        found = _by_method(data, budget, results)
        rows = [_scores(method, seeds, found.get(REFERENCE, {})) for method, seeds in found.items()]
        title = f"{data}, {budget} CPU seconds, test split" if budget else f"{data}, untrained, test split"
        parts.append(_table(title, ["method", *_HEADS, f"minus {REFERENCE}", "its head"], rows))
    return "\n\n".join(parts)


def _is_compared(run: Experiment, data: str) -> bool:
    return run.split == "test" and run.data == data


def _by_method(data: str, budget: int, results: Results) -> dict[str, Seeds]:
    found: dict[str, dict[int, Result]] = {method: {} for method in METHODS}
    for run, result in results.runs.items():
        if _is_compared(run, data) and run.budget == budget:
            found[run.method][run.seed] = result
    return {method: seeds for method, seeds in found.items() if seeds}


_HEADS = ("seeds", "steps", "CPU s", "k-NN", "linear", "effective rank", "loss ratio")


def _scores(name: str, seeds: Seeds, base: Seeds) -> Row:
    found = list(seeds.values())
    return [
        name,
        str(len(found)),
        *(_mean(found, key, 0) for key in ("steps", "cpu_seconds")),
        *(_mean(found, key, 1) for key in ("knn", "linear", "rank")),
        _mean(found, "loss_ratio", 2),
        ", ".join(_difference(seeds, base, key) for key in ("knn", "linear")) if base and base is not seeds else "",
        _mean(found, "head", 1),
    ]


def _difference(seeds: Seeds, base: Seeds, key: str) -> str:
    values, others = ([result[key] for result in found.values()] for found in (seeds, base))
    difference = statistics.mean(values) - statistics.mean(others)
    pairs = [seeds[seed][key] - base[seed][key] for seed in seeds if seed in base]
    known = min(len(values), len(others), len(pairs)) > 1
    agree = all(pair > 0 for pair in pairs) or all(pair < 0 for pair in pairs)
    star = known and agree and abs(difference) > max(map(statistics.stdev, (values, others)))
    return f"{round(difference, 1) + 0.0:+.1f}{'*' if star else ''}"


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
        for method, seeds in _by_method(data, budget, results).items():
            moments = zip(*(result["health"] for result in seeds.values()), strict=True)
            scores = [f"{_mean(list(at), 'knn', 1)}; {_mean(list(at), 'rank', 1)}" for at in moments]
            rows.append([f"{method}, {budget} s", *scores])
    heads = ["method", "after 10% of the steps", "50%", "100%"]
    return _table(f"{data}: k-NN; effective rank of the teacher (of the encoder where there is none)", heads, rows)


def _ablations(data: str, results: Results) -> str:
    parts = []
    for (ablated, method), planned in ABLATED.items():
        for budget in planned if ablated == data else ():
            title = f"Ablations of {method} on {data}, {budget} CPU seconds, validation split"
            parts.append(
                _table(title, ["with", *_HEADS, "minus the first"], _ablation_rows(data, method, budget, results))
            )
    return "\n\n".join(part for part in parts if part)


def _ablation_rows(data: str, method: str, budget: int, results: Results) -> list[Row]:
    if not all(trial(data, method, settings) in results.runs for settings in RATES):
        return []
    base, first, rows = results.chosen(data, method), {}, []
    for settings in ({}, *(settings for group in ABLATIONS.values() for settings in group)):
        same = _same(ablation(data, method, base, settings, budget, 0))
        seeds = {run.seed: result for run, result in results.runs.items() if same(run)}
        first = first or seeds
        if seeds:
            rows.append(_scores(_label(settings) or "as chosen in the trials", seeds, first)[:-1])
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
    return f"{title}:\n\n{_grid(heads, rows)}"


def _grid(heads: Row, rows: Sequence[Row]) -> str:
    used = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line[i] for i in used) + " |" for line in lines)


def write(path: Path, text: str) -> None:
    """Put `text` between the two marks in a document. Raises ValueError when it has none."""
    before, mark, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    if not mark or _END not in rest:
        raise ValueError(f"{path} needs the lines {_BEGIN.strip()} and {_END.strip()}")
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def main() -> None:
    results = Results(HERE / "results.jsonl")
    (HERE / "RESULTS.md").write_text(document(results), encoding="utf-8")
    write(GUIDE, against_mae(results))


if __name__ == "__main__":
    main()
