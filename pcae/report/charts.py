"""Line charts as SVG: small, without scripts, in the colours of the page.

Letters: m measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcae.report import page
from pcae.report.history import History, Series
from pcae.report.page import escape
from pcae_core.contract import Floats

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 8, 32
_MOST_POINTS = 300
_NUM_COLOURS = 4
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""Dash patterns, so that lines differ in more than colour."""


@dataclass(frozen=True)
class Chart:
    """Measurements to draw together.

    Attributes:
        text: note for the reader.
        level: value to mark, and its name.
    """

    title: str
    names: tuple[str, ...]
    text: str = ""
    level: tuple[float, str] | None = None


KNOWN = (
    Chart("loss", ("loss",), "pre-training: 1 - cosine to the target, low in collapse too; fine-tuning: cross-entropy"),
    Chart("top-1", ("top1",), "of the scored split, in percent"),
    Chart("loss ratio", ("loss_ratio",), "the loss divided by that of the best constant prediction", (1.0, "constant")),
    Chart(
        "effective ranks",
        ("target_rank", "token_rank", "feature_rank"),
        "of the targets' means, of single targets, of the student's features; near 1 is collapse",
    ),
    Chart("learning rate", ("learning_rate",)),
    Chart("teacher's momentum", ("ema_momentum",)),
    Chart("throughput", ("images_per_second",), "images a second"),
    Chart("gradient norm", ("grad_norm",), "before clipping"),
)
NOT_DRAWN = ("epoch",)


def charts(history: History) -> list[Chart]:
    """Charts of the measurements: the known charts, then one for each other measurement that varies."""
    known = {name for chart in KNOWN for name in chart.names}
    found = [
        Chart(chart.title, tuple(name for name in chart.names if name in history.series), chart.text, chart.level)
        for chart in KNOWN
    ]
    others = [name for name in history.series if name not in known and name not in NOT_DRAWN]
    return [c for c in found if c.names] + [Chart(name, (name,)) for name in others if not is_constant(history, name)]


def constants(history: History) -> dict[str, float]:
    """Measurements without a chart, because they never change: name -> value."""
    known = {name for chart in KNOWN for name in chart.names}
    last = {name: history.last(name) for name in history.series if name not in known and is_constant(history, name)}
    return {name: value for name, value in last.items() if value is not None and name not in NOT_DRAWN}


def is_constant(history: History, name: str) -> bool:
    """Whether a measurement has fewer than two different values."""
    return len(np.unique(history.series[name].finite)) < 2


def card(chart: Chart, history: History) -> str:
    """A chart with its title, the newest values, and a legend if it has several lines."""
    newest = {name: history.last(name) for name in chart.names}
    values = [f"{value:.4g}" for value in newest.values() if value is not None]
    legend = ""
    if len(chart.names) > 1:
        marks = (
            f'<span><i style="border-color:var(--c{i % _NUM_COLOURS});border-top-style:{_border(i)}"></i>'
            f"{escape(name)}{'' if newest[name] is None else f' {newest[name]:.4g}'}</span>"
            for i, name in enumerate(chart.names)
        )
        legend = f'<div class="legend">{"".join(marks)}</div>'
        values = []
    heading = f"{chart.title} {values[0] if values else ''}".strip()
    text = page.paragraph(chart.text, "faint") if chart.text else ""
    return page.card(heading, _svg(chart, history), legend, text)


def _border(place: int) -> str:
    return ("solid", "dashed", "dotted", "dashed")[place % len(_DASHES)]


def _svg(chart: Chart, history: History) -> str:
    values = np.concatenate([history.series[name].finite for name in chart.names])
    if not len(values):
        return '<p class="faint">no finite value so far</p>'
    marked = [] if chart.level is None else [chart.level[0]]
    y = ticks(min(values.min(), *marked) if marked else values.min(), max([values.max(), *marked]), 4)
    x = ticks(history.steps[0], history.steps[-1], 4, whole=True)
    frame = _Frame((history.steps[0], history.steps[-1]), (y[0], y[-1]))
    lines = [frame.line(history.series[name], i) for i, name in enumerate(chart.names)]
    level = "" if chart.level is None else frame.level(*chart.level)
    steps = f"step {history.steps[0]:g} to {history.steps[-1]:g}"
    label = f"{chart.title}, {steps}: from {values.min():.4g} to {values.max():.4g}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{frame.axes(x, y)}{level}{''.join(lines)}</svg>"
    )


@dataclass(frozen=True)
class _Frame:
    """Maps values to places in the chart; each range is (lowest, highest)."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return round(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        rows = [
            f'<path d="M{_LEFT} {self.y(v)}H{_WIDTH - _RIGHT}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 6}" y="{self.y(v) + 4:g}" text-anchor="end">{v:g}</text>'
            for v in y_ticks
        ]
        low, high = self.x_range
        columns = [
            f'<text x="{self.x(v)}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{v:g}</text>'
            for v in x_ticks
            if low <= v <= high
        ]
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return "".join(rows + columns) + f'<text x="{middle}" y="{_HEIGHT - 3}" text-anchor="middle">step</text>'

    def level(self, value: float, name: str) -> str:
        y, right = self.y(value), _WIDTH - _RIGHT
        return (
            f'<path d="M{_LEFT} {y}H{right}" stroke="currentColor" stroke-dasharray="4 3"/>'
            f'<text x="{right}" y="{y - 4 if y > _TOP + 14 else y + 13}" text-anchor="end">{escape(name)}</text>'
        )

    def line(self, series: Series, place: int) -> str:
        """A path with gaps at values that are not finite. A single point between gaps is a dot."""
        steps, values = thinned(series.steps, series.values)
        finite = np.pad(np.isfinite(values), 1)
        colour = f"var(--c{place % _NUM_COLOURS})"
        path, dots = [], []
        for i in np.flatnonzero(finite[1:-1]):
            x, y = self.x(float(steps[i])), self.y(float(values[i]))
            path.append(f"{'L' if finite[i] else 'M'}{x} {y}")
            if not finite[i] and not finite[i + 2]:
                dots.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        style = f'stroke="{colour}" stroke-dasharray="{_DASHES[place % len(_DASHES)]}"'
        return f'<path d="{"".join(path)}" fill="none" stroke-width="2" {style}/>{"".join(dots)}'


def thinned(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """At most `_MOST_POINTS` points (m,). Each is the mean of equally many neighbours; NaN if all of them are NaN."""
    size = math.ceil(len(steps) / _MOST_POINTS)
    if size <= 1:
        return steps, values
    starts = np.arange(0, len(steps), size)
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(float), starts)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return np.add.reduceat(steps, starts) / np.diff(np.append(starts, len(steps))), means


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` + 1 round numbers, the first at most `low` and the last at least `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
