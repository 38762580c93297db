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
    """Flags of `pcae serve`.

    Attributes:
        model: folder that pcae export wrote, or its model.onnx.
        provider: execution provider of ONNX Runtime, such as cpu or cuda. It is an error if it is not available.
        threads: number of threads of one operator. Default: the number of cores.
        memory_mib: memory limit of a run on CPUs, in MiB, without the weights; "None" for no limit.
    """

    model: Annotated[Path, tyro.conf.Positional]
    settings: Annotated[Settings, tyro.conf.arg(name=""), tyro.conf.UseAppendAction] = field(default_factory=Settings)
    provider: str = "cpu"
    threads: int | None = None
    memory_mib: int | None = MEMORY_MIB


def main(arguments: Sequence[str]) -> None:
    """Parse, load the model, serve until a signal arrives."""
    chosen = parse(Arguments, "serve", arguments, description=DESCRIPTION)
    import pcae_onnx
    from pcae_onnx import serving

    pcae_onnx.require("onnx", "onnxruntime")
    serving.require()
    from pcae_onnx.serving.server import serve
    from pcae_onnx.session import InferenceSession

    chosen.settings.check()
    serve(InferenceSession(chosen.model, chosen.provider, chosen.threads, chosen.memory_mib), chosen.settings)
