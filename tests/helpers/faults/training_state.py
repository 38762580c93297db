"""Faults of pre-training's state, micro-batches and pixels."""

from __future__ import annotations

from faults.fault import numpy_edit

EMA = "self._state.teacher = ops.ema_update(self._state.teacher, self._state.student, momentum)"
COPIED = "self._state = copy_state(state or pretraining_state(config.model, config.seed))"

FAULTS = (
    numpy_edit(
        "EMA a micro-batch", "train-accumulation", ("pretraining", EMA, f"for _ in range(parts):\n            {EMA}")
    ),
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
    numpy_edit("pixels in 0..255", "train-pixels", ("pretraining", "(images / 255.0 - np", "(images - np")),
    numpy_edit(
        "pixels not divided by the deviation",
        "train-pixels",
        (
            "pretraining",
            "(images / 255.0 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))",
            "images / 255.0 - np.reshape(mean, (-1, 1, 1))",
        ),
    ),
    numpy_edit(
        "given state shared",
        "train-snapshot",
        ("pretraining", COPIED, "self._state = state or pretraining_state(config.model, config.seed)"),
    ),
    numpy_edit(
        "taken state shared", "train-snapshot", ("pretraining", "return copy_state(self._state)", "return self._state")
    ),
    numpy_edit(
        "moments forgotten",
        "train-state",
        (
            "pretraining",
            COPIED,
            COPIED + "\n        self._state.exp_avg = backward.zero_gradients(self._state.student)",
        ),
    ),
    numpy_edit(
        "step forgotten", "train-state", ("pretraining", "for group in groups), state.step)", "for group in groups))")
    ),
)
