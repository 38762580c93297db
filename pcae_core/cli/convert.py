"""`pcae convert`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pcae_core.cli.parsing import parse
from pcae_core.errors import ConfigError

DESCRIPTION = """Write the weights of a run as a file that a framework's own users load without PCAE.

The ending of the file chooses the kind: .pth (PyTorch), .ckpt (MindSpore), .npz (NumPy). Names and values are those of
the checkpoint; moments and position stay behind, so that training continues from the run itself, in any framework.

Examples:
  pcae convert runs/demo encoder.pth
  pcae convert runs/demo/checkpoints/step_00001000 teacher.ckpt --weights teacher"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae convert` takes.

    Attributes:
        source: a run's folder, or one of its checkpoints.
        out: file to write, .pth, .ckpt or .npz; must not exist.
        weights: the student (encoder and decoder) or the teacher (an encoder).
    """

    source: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    weights: Literal["student", "teacher"] = "student"


def main(arguments: Sequence[str]) -> None:
    """Parse, convert, say what was written."""
    chosen = parse(Arguments, "convert", arguments, description=DESCRIPTION)
    from pcae_core import checkpoint, registry

    writers = registry.writers()
    if chosen.out.suffix not in writers:
        raise ConfigError(f"{chosen.out} must end in {' or '.join(writers)}, which say what to write")
    if chosen.out.exists():
        raise ConfigError(f"{chosen.out} exists already; remove it or choose another name")
    if not chosen.out.parent.is_dir():
        raise ConfigError(f"cannot write {chosen.out}: its folder does not exist")
    loaded = checkpoint.load(chosen.source)
    backend = registry.create(writers[chosen.out.suffix])
    parameters = getattr(loaded.state, chosen.weights)
    if not parameters:
        raise ConfigError(f"{chosen.source} has no {chosen.weights}: it was fine-tuned without a moving average")
    unfinished = chosen.out.with_name(f"unfinished.{chosen.out.name}")
    try:
        backend.save_weights(unfinished, parameters)
        unfinished.replace(chosen.out)
    except OSError as error:
        raise ConfigError(f"cannot write {chosen.out}: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"wrote {chosen.out}: {len(parameters)} tensors of the {chosen.weights}, step {loaded.state.step}")
