"""Gives cases to a worker, one after another, and outlives it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import patience

from fuzz.watch import LIMIT_SECONDS, Outcome

HELPERS = Path(__file__).parents[1]
OTHERS_SECONDS = 300.0
"""Of CPU time, for what is not measured: loading the libraries, writing a file."""


class Worker:
    """A watched process; `case` raises WorkerDiedError where it hangs or dies."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        shutil.rmtree(root / "cases", ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
        paths = [str(HELPERS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": ":".join(paths)}
        self._log = (root / "stderr.txt").open("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", str(root), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, bufsize=0,
        )  # fmt: skip
        self._pending = b""

    def prepare(self, kind: str) -> None:
        try:
            self._tell(f"prepare {kind}")
            self._hear(OTHERS_SECONDS)
        except WorkerDiedError:
            self.close()
            raise

    def case(self, number: int) -> tuple[str, Outcome]:
        """What it was, and what came of it."""
        self._tell(f"case {number}")
        try:
            note = self._hear(OTHERS_SECONDS)
        except WorkerDiedError as error:
            raise RuntimeError(f"case {number} cannot be made: {error}") from None
        try:
            return note, Outcome(**self._hear(LIMIT_SECONDS + 5))
        except WorkerDiedError as error:
            return note, Outcome("failed", str(error), 0.0, 0.0)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            file.close()

    def _tell(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n".encode())

    def _hear(self, seconds: float) -> Any:
        """Its next answer, for which it may compute so long."""
        until, most = time.monotonic() + patience.SECONDS, patience.cpu_seconds(self._process.pid) + seconds
        while b"\n" not in self._pending:
            if select.select([self._process.stdout], [], [], 1.0)[0]:
                more = os.read(self._process.stdout.fileno(), 65536)
                if not more:
                    self._process.wait(patience.SECONDS)
                    raise self._dead("")
                self._pending += more
            elif time.monotonic() > until or patience.cpu_seconds(self._process.pid) > most:
                raise self._dead(f"no answer within {seconds:.0f} s of CPU time, or an hour")
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def _dead(self, reason: str) -> WorkerDiedError:
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        return WorkerDiedError(f"the process ended with {code}: {reason or self._log.read()[-600:]}")


class WorkerDiedError(Exception):
    """The worker hung or died."""


@dataclass
class Total:
    """Of one kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    peak_mb: float = 0.0

    def add(self, number: int, note: str, found: Outcome) -> None:
        self.counts[found.outcome] += 1
        self.slowest, self.peak_mb = max(self.slowest, found.seconds), max(self.peak_mb, found.peak_mb)
        if found.outcome == "failed":
            self.failures.append(f"{self.kind} case {number} ({note}): {found.says}")
        if found.harm:
            self.failures.append(f"{self.kind} case {number} ({note}): without guards it {found.harm}")


def run(kind: str, numbers: Iterable[int], root: Path, seed: int, worker: Worker | None = None) -> tuple[Total, Worker]:
    """All of one kind, by `worker` where it is given and lives; returns it, or its successor, for the next kind."""
    total = Total(kind)
    fresh = True
    for number in numbers:
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker, fresh = Worker(root, seed), True
        if fresh:
            worker.prepare(kind)
            fresh = False
        total.add(number, *worker.case(number))
    assert worker is not None
    return total, worker
