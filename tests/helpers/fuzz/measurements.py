"""`metrics.jsonl`: its bytes, its lines as JSON; read for a page, and cut when a run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from fuzz import checkpoints
from fuzz.kind import Kind, choose
from fuzz.mutation import json_text, mutated
from pcae.report.run_report import Options, report
from pcae_core import PretrainConfig, registry
from pcae_core.storage.run import Run
from pcae_core.training.loggers import JsonlLogger

NAME = "metrics.jsonl"
LAST = 5
_LINES = (
    b"", b"{}", b"[]", b"null", b'{"step": null}', b'{"step": 1e999}', b'{"step": NaN}', b'{"step": -1}', b"\xff\xfe",
    b'{"step": 3', b'{"step": true, "loss": {}}', b"\0" * 4096, b"\r", b'{"step": "3"}', b'{"step": 0.5, "loss": "x"}',
    b'{"step": 1e308, "loss": -1e308}', b'{"step": 2, "<script>": 1}', b'{"step": 2, "": 1}',
    b'{"step": 9, "x": 1e-320}',
)  # fmt: skip


class Measurements(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        self.config = PretrainConfig(model=checkpoints.MODEL, steps=20).to_yaml()
        rows = [
            {"step": step, "loss": 1 / step, "loss_ratio": 0.9, "images_per_second": 9.5, "epoch": step / 4}
            for step in range(1, 11)
        ]
        self.lines = [json.dumps(row).encode() for row in rows]
        self.backend = registry.create("numpy")

    def good(self, folder: Path) -> None:
        (folder / "config.yaml").write_text(self.config)
        (folder / NAME).write_bytes(b"\n".join(self.lines) + b"\n")

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        self.good(folder)
        what = choose(rng, ("bytes", "json", "json", "lines", "lines", "no file", "no file"))
        lines = list(self.lines)
        if what == "no file":
            (folder / NAME).unlink()
            choose(rng, ((folder / NAME).mkdir, lambda: (folder / NAME).symlink_to(os.devnull)))()
            return what
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(lines)))
            if what == "json":
                lines[place] = json_text(rng, json.loads(self.lines[place]))
            elif what == "lines":
                lines.insert(place, choose(rng, _LINES))
        data = b"\n".join(lines) + b"\n"
        (folder / NAME).write_bytes(mutated(rng, data) if what == "bytes" else data)
        return what

    def read(self, folder: Path) -> None:
        report(Run(folder), self.backend, Options())
        logger = JsonlLogger(folder / NAME, LAST)
        logger.write(LAST + 1, {"loss": 0.5})
        logger.close()
        steps = [json.loads(line)["step"] for line in (folder / NAME).read_text(encoding="utf-8").split("\n")[:-1]]
        assert steps[-1] == LAST + 1
        assert max(steps) == LAST + 1
