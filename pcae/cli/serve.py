"""`pcae serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from pcae.cli.parsing import parse
from pcae_onnx import MEMORY_MIB
from pcae_onnx.serving.settings import Settings

DESCRIPTION = """Serve an exported model over HTTP: the Open Inference Protocol v2, and POST /predict for image files.

Example:
  pcae serve models/demo --port 8000 --threads 2"""


@dataclass(frozen=True)
class Arguments:
    """What `pcae serve` takes.

    Attributes:
        model: a folder written by pcae export, or its model.onnx.
        provider: cpu, cuda, or another of ONNX Runtime's; an error when it is not there.
        threads: of one operator; by default as many as there are cores.
        memory_mib: the most that a run on CPUs may take beside the weights, in MiB; "None" for no limit.
    """

    model: Annotated[Path, tyro.conf.Positional]
    settings: Annotated[Settings, tyro.conf.arg(name=""), tyro.conf.UseAppendAction] = field(default_factory=Settings)
    provider: str = "cpu"
    threads: int | None = None
    memory_mib: int | None = MEMORY_MIB


def main(arguments: Sequence[str]) -> None:
    """Parse, load the model, answer until a signal."""
    chosen = parse(Arguments, "serve", arguments, description=DESCRIPTION)
    import pcae_onnx
    from pcae_onnx import serving

    pcae_onnx.require("onnx", "onnxruntime")
    serving.require()
    from pcae_onnx.serving.server import serve
    from pcae_onnx.session import InferenceSession

    chosen.settings.check()
    serve(InferenceSession(chosen.model, chosen.provider, chosen.threads, chosen.memory_mib), chosen.settings)
