"""`pcae report`: one page about a run, finished or not.

Letters: B images, C channels, H = W pixels.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pcae.report import charts, history, kept_by_step, page, tables
from pcae.report.history import History
from pcae_core.contract import Backend
from pcae_core.errors import CheckpointError, DataError, TrainingError
from pcae_core.evaluation.costs import KEEPS
from pcae_core.evaluation.evaluate import evaluate
from pcae_core.evaluation.keep_table import keep_table
from pcae_core.evaluation.tables import evaluation_table, keep_ratio_table
from pcae_core.storage.checkpoint import Manifest
from pcae_core.storage.run import Run


@dataclass(frozen=True)
class Options:
    """Options of a page.

    Attributes:
        data: data set to draw images of and to evaluate on; None draws images of the run's own data set.
        images: number of images to draw.
        keep: share of the patch tokens that each stage keeps; None for that of pre-training.
        split: split of `data` to evaluate on; None for the first of test and val that has labels.
        ignore_unknown: leave out images whose class the fine-tuned run, or else the train split, does not have.
        max_corrupt: largest share of a split that may be unreadable.
    """

    data: Path | None = None
    images: int = 4
    keep: float | None = None
    split: str | None = None
    ignore_unknown: bool = False
    max_corrupt: float = 1.0


def report(run: Run, backend: Backend, options: Options) -> tuple[str, list[str]]:
    """The page of a run, and warnings of one line each. Damaged or missing parts cause warnings, not errors.

    Raises:
        CheckpointError: there is no run in the folder.
        ConfigError: the configuration of the run cannot be read.
        DataError: there is no data set at `options.data`, or `metrics.jsonl` cannot be read.
    """
    model, measured = run.model, history.read(run.metrics)
    manifest, warnings = _newest(run)
    pictures, said = kept_by_step.section(run, backend, options.data, options.images, options.keep)
    warnings += said
    evaluation, said = _evaluation(run, backend, options, manifest)
    warnings += said
    body = [
        *page.warnings(warnings),
        *_state(run, measured, manifest),
        _charts(measured),
        page.section("Accuracy", *evaluation),
        page.section("Tokens that stay", *pictures),
        page.section("Cost", *tables.cost_tables(model)),
        page.section("Configuration", f'<div class="card"><pre>{page.escape(_as_yaml(run))}</pre></div>'),
        page.section("Environment", *_environment(manifest)),
    ]
    return page.page(f"Run {run.path.resolve().name}", body), warnings


def _newest(run: Run) -> tuple[Manifest | None, list[str]]:
    """The manifest of the newest checkpoint, or None and a warning with the reason."""
    if not run.checkpoints:
        return None, []
    try:
        return run.manifest, []
    except CheckpointError as error:
        return None, [str(error)]


def _state(run: Run, measured: History, manifest: Manifest | None) -> list[str]:
    """The progress of the run, in large numbers."""
    if not len(measured.steps):
        return [page.paragraph("The run has measured nothing so far.")]
    step, total = int(measured.steps[-1]), _total_steps(run, manifest)
    shown = {"step": f"{step}" if total is None else f"{step} of {total}"}
    names = {"loss": "loss", "loss_ratio": "of a constant prediction's loss", "feature_rank": "rank of features"}
    names |= {"images_per_second": "images a second", "epoch": "epochs"}
    for name, title in names.items():
        value = measured.last(name)
        if value is not None:
            shown[title] = f"{value:.4g}"
    when = datetime.datetime.fromtimestamp(run.metrics.stat().st_mtime, datetime.UTC)
    text = f"Last measurement: {when:%Y-%m-%d %H:%M} UTC."
    if total is not None and step < total:
        text += " The run is not finished: it is still training, or it was stopped."
    if measured.unreadable:
        text += f" Lines of metrics.jsonl that could not be read and are left out: {measured.unreadable}."
    return [page.numbers(shown), page.paragraph(text, "faint")]


def _total_steps(run: Run, manifest: Manifest | None) -> int | None:
    if run.steps is not None:
        return run.steps
    return manifest.config.total_steps(manifest.data.num_samples) if manifest else None


def _charts(measured: History) -> str:
    drawn = [charts.card(chart, measured) for chart in charts.charts(measured)]
    if not drawn:
        return ""
    constant = [f"{name} {value:.6g}" for name, value in charts.constants(measured).items()]
    note = page.paragraph(f"The same at every step: {', '.join(constant)}.", "faint") if constant else ""
    return page.section("Measurements", page.cards(drawn), note)


def _evaluation(run: Run, backend: Backend, options: Options, manifest: Manifest | None) -> tuple[list[str], list[str]]:
    """The results of `pcae evaluate`, or how to get them; and warnings."""
    command, data = f"pcae report {run} --data DIR", options.data
    if data is None or manifest is None:
        why = "Not measured" if manifest else "There is no checkpoint to evaluate yet"
        return [page.paragraph(f"{why}. With a labelled data set, {command} adds the results of pcae evaluate.")], []
    how: dict[str, Any] = {name: getattr(options, name) for name in ("split", "ignore_unknown", "max_corrupt")}
    try:
        if manifest.kind == "finetune":
            path, rows, missing = keep_table(backend, run, data, KEEPS, **how)
            note = f"{path.name}, percent of {rows[0].accuracy.samples} images, by the share of the patch tokens that "
            note += "each stage keeps; images per second of batches of 64 on the machine that wrote this page."
            return [page.paragraph(note, "faint"), page.table(*keep_ratio_table(rows))], missing
        results, missing = evaluate(backend, run, data, **how)
    except (DataError, CheckpointError, TrainingError) as error:
        return [page.paragraph(f"Not measured: {error}")], [f"no evaluation: {error}"]
    note = f"Frozen features at step {manifest.step}, mean of the patch tokens, percent of "
    note += (
        f"{results['random'].knn.samples} images. The row random is the same encoder before training; the rank is the "
    )
    note += "effective rank of the features."
    return [page.paragraph(note, "faint"), page.table(*evaluation_table(results))], missing


def _as_yaml(run: Run) -> str:
    text: str = yaml.safe_dump(dict(run.settings), sort_keys=False)
    return text


def _environment(manifest: Manifest | None) -> Sequence[str]:
    if manifest is None:
        return [page.paragraph("There is no checkpoint yet, so the versions are not known.")]
    rows = [*manifest.versions.items(), ("device", manifest.config.device), ("seed", manifest.seed)]
    rows += [("images in the data set", manifest.data.num_samples), ("data set", manifest.data.fingerprint)]
    return [page.table(("of the newest checkpoint", ""), rows)]
