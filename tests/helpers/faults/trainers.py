"""Overrides of `create_pretrainer` and `create_finetuner`: a right trainer of which one part is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pcae_core.config import RunConfig
from pcae_core.contract import Trainer, TrainState

Create = Callable[..., Trainer]
HALF = ("bfloat16", "float16")


def pretrainer(**parts: Any) -> dict[str, Create]:
    """The method as a keyword of an override; the parts are those of `_creating`."""
    return {"create_pretrainer": _creating("create_pretrainer", **parts)}


def finetuner(**parts: Any) -> dict[str, Create]:
    """The same for fine-tuning."""
    return {"create_finetuner": _creating("create_finetuner", **parts)}


def in_half(wrong_step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that is wrong in half precision alone."""

    def step(right: Callable[..., Any], config: RunConfig, *batch: Any, **rates: Any) -> Any:
        return wrong_step(right, config, *batch, **rates) if config.precision in HALF else right(*batch, **rates)

    return step


def _creating(
    method: str,
    settings: Callable[[RunConfig], dict[str, Any]] | None = None,
    given: Callable[[RunConfig, TrainState | None], TrainState | None] | None = None,
    step: Callable[..., Any] | None = None,
    taken: Callable[[TrainState], TrainState] | None = None,
) -> Create:
    """The method with wrong parts.

    Args:
        settings: from the configuration, the fields of it that the trainer gets wrong.
        given: from the configuration and the state given, the state that training starts from.
        step: called as `step(right_step, config, *batch, **rates)`.
        taken: from the right state, the one that `state()` gives.
    """

    def create(self: Any, config: RunConfig, state: TrainState | None = None) -> Trainer:
        own = config.model_copy(update=settings(config)) if settings else config
        trainer = getattr(self.right, method)(own, given(config, state) if given else state)
        if step:
            trainer.step = functools.partial(step, trainer.step, config)
        if taken:
            right_state = trainer.state
            trainer.state = lambda: taken(right_state())
        return trainer

    return create
