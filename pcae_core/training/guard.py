"""Count the steps that a trainer skipped because their loss or gradient was not finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcae_core.config import RunConfig
from pcae_core.contract import Array
from pcae_core.errors import ConfigError
from pcae_core.storage.run import Run


@dataclass
class NonFiniteGuard:
    """Counts skipped steps, in every process alike. It reads `finite` of many steps at once, so that no step waits.

    Attributes:
        limit: steps in a row that may be skipped before `look` says stop.
        skipped: steps skipped so far.
        first: the first step of those skipped in a row now, or None when the last step was good.
    """

    limit: int
    skipped: int = 0
    first: int | None = None
    _pending: list[tuple[int, Array]] = field(default_factory=list)

    def add(self, step: int, finite: Array) -> bool:
        """Add a step. Returns whether it is time to `look`."""
        self._pending.append((step, finite))
        return len(self._pending) >= self.limit

    def look(self, to_numpy: Callable[[Array], Any]) -> bool:
        """Read the steps since the last call. Returns whether `limit` steps in a row were skipped, from `first` on."""
        pending, self._pending = self._pending, []
        for step, finite in pending:
            if to_numpy(finite):
                self.first = None
                continue
            self.skipped += 1
            self.first = step if self.first is None else self.first
            if step - self.first + 1 >= self.limit:
                return True
        return False


def inputs_path(out: Path, step: int) -> Path:
    """Where the inputs of 0-based `step` are written."""
    return out / f"nonfinite_{step + 1:08d}.npz"


def write_inputs(out: Path, step: int, inputs: Mapping[str, Any]) -> None:
    """Write the inputs of 0-based `step` to a file, for a look at them. Raises ConfigError when the disk refuses."""
    path = inputs_path(out, step)
    try:
        np.savez(path, **{name: value for name, value in inputs.items() if value is not None})
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot write {path}, the batch of a step that is not finite: {reason}") from None


def advice(config: RunConfig, command: str, first: int) -> str:
    """The message for a run whose `config.max_skipped_steps` steps from 0-based `first` on were skipped."""
    saved = Run(config.out).checkpoints
    kept = f"the run is back at its newest checkpoint, {saved[-1].name}" if saved else "nothing had been saved"
    go_on = ""
    if saved and config.precision in ("float16", "bfloat16"):
        go_on = f"go on with: pcae {command} --resume {config.out} --precision float32; or "
    return (
        f"loss or gradient was not finite from step {first + 1} on, max_skipped_steps = {config.max_skipped_steps} "
        f"times in a row; these updates were skipped, and {kept}; the inputs of step {first + 1} are in "
        f"{inputs_path(config.out, first)}. Look at its images; {go_on}start anew with a lower base_learning_rate "
        "or with grad_clip"
    )
