"""One image as a figure: rows of panels with titles.

Letters: C channels, H = W pixels, V visible patches, K targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pcae.report import panels
from pcae.report.panels import Pixels
from pcae.report.stages import Ids
from pcae_core.config import ModelConfig
from pcae_core.contract import StageOutput


@dataclass(frozen=True)
class Panel:
    """A picture with a title.

    Attributes:
        image: the picture; None if there is none, and `text` has the reason.
        text: text below the title.
        scale: scores of the first and the last colour of `panels.SCALE`.
    """

    title: str
    image: Image.Image | None
    text: str = ""
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Figure:
    """The panels of one image, in rows. The first row is the figure of the paper."""

    name: str
    rows: tuple[tuple[Panel, ...], ...]


@dataclass(frozen=True)
class PretrainingSplit:
    """Split of an image in a pre-training step: visible patches (V,) and target patches (K,)."""

    visible: Ids
    targets: Ids


def draw(
    name: str,
    pixels: Pixels,
    config: ModelConfig,
    stages: Sequence[StageOutput],
    row: int,
    split: PretrainingSplit | str,
) -> Figure:
    """The figure of one image, uint8 (C, H, W), which is number `row` in the batch of `stages`.

    Args:
        split: split of the image, or the reason why there is none.
    """
    image = panels.picture(pixels)
    kept = [_kept(image, config, stage, row) for stage in stages]
    scores = [_scores(len(image), config, stage, row) for stage in stages]
    if not stages:
        kept = [Panel("every token stays", None, "this model drops no token, so it computes no scores")]
    shown = Panel("input", Image.fromarray(image), f"{config.num_patches} tokens")
    rows = [(shown, *kept), tuple(scores), _pretraining(image, config, split)]
    return Figure(name, tuple(panel for panel in rows if panel))


def _kept(image: Pixels, config: ModelConfig, stage: StageOutput, row: int) -> Panel:
    stay = panels.on_grid(stage.kept_ids[row], config.grid_size)
    text = f"{stage.kept_ids.shape[1]} of {config.num_patches} tokens stay"
    return Panel(f"after block {stage.block + 1}", panels.tokens(image, stay), text)


def _scores(side: int, config: ModelConfig, stage: StageOutput, row: int) -> Panel:
    scores = stage.scores[row]
    drawn = panels.heat_map(stage.ids[row], scores, config.grid_size, side)
    text = f"similarity scores of {len(scores)} tokens"
    return Panel(f"scores, block {stage.block + 1}", drawn, text, (float(scores.min()), float(scores.max())))


def _pretraining(image: Pixels, config: ModelConfig, split: PretrainingSplit | str) -> tuple[Panel, ...]:
    if isinstance(split, str):
        return (Panel("pre-training", None, split),)
    visible = panels.on_grid(split.visible, config.grid_size)
    targets = panels.on_grid(split.targets, config.grid_size)
    return (
        Panel("visible", panels.tokens(image, visible), f"the student sees {visible.sum()} of {visible.size}"),
        Panel("masked", panels.tokens(image, ~visible), f"the teacher starts from {(~visible).sum()}"),
        Panel("targets", panels.tokens(image, targets), f"the student predicts {targets.sum()}"),
    )
