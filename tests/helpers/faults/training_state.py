"""Faults of pre-training's state, micro-batches and pixels."""

from __future__ import annotations

import dataclasses

import numpy as np

from faults.fault import numpy_edit, numpy_override
from faults.trainers import pretrainer

EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"
COPIED = "self._state = copy_state(state or pretraining_state(config.model, config.seed))"


def ema_of_each_part(right, config, *batch, momentum, **rates):
    return right(*batch, momentum=momentum**config.accumulation, **rates)


def not_scaled(right, config, images, *batch, **rates):
    mean, std = normalization(config)
    return right((images - mean) / std if images.dtype == np.uint8 else images, *batch, **rates)


def not_divided(right, config, images, *batch, **rates):
    mean, _ = normalization(config)
    return right(images / 255.0 - mean if images.dtype == np.uint8 else images, *batch, **rates)


def normalization(config):
    """Mean and deviation of the channels, (C, 1, 1)."""
    return (np.reshape(each, (-1, 1, 1)) for each in config.loader.normalization(config.model.in_chans))


def without_moments(config, state):
    zeros = {name: np.zeros_like(value) for name, value in state.exp_avg.items()}
    return dataclasses.replace(state, exp_avg=zeros)


def without_step(config, state):
    return dataclasses.replace(state, step=0)


FAULTS = (
    numpy_override("EMA a micro-batch", "train-accumulation", **pretrainer(step=ema_of_each_part)),
    numpy_edit(
        "EMA skips the norms",
        "train-fixed-points",
        (
            "pretraining",
            EMA,
            f"old = self._state.teacher\n        {EMA}\n"
            "        self._state.teacher |= {n: v for n, v in old.items() if 'norm' in n}",
        ),
    ),
    numpy_edit("sum of the micro-batches", "train-accumulation", ("pretraining", "+= grad / parts", "+= grad")),
    numpy_edit(
        "last micro-batch only",
        "train-accumulation",
        ("pretraining", "total[name] += grad / parts", "total[name] = grad"),
    ),
    numpy_override("pixels in 0..255", "train-pixels", **pretrainer(step=not_scaled)),
    numpy_override("pixels not divided by the deviation", "train-pixels", **pretrainer(step=not_divided)),
    numpy_edit(
        "given state shared",
        "train-snapshot",
        ("pretraining", COPIED, "self._state = state or pretraining_state(config.model, config.seed)"),
    ),
    numpy_edit(
        "taken state shared", "train-snapshot", ("pretraining", "return copy_state(self._state)", "return self._state")
    ),
    numpy_override("moments forgotten", "train-state", **pretrainer(given=without_moments)),
    numpy_override("step forgotten", "train-state", **pretrainer(given=without_step)),
)
