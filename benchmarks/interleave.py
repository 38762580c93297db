"""Timing side by side: contenders take turns, so that what else runs on the machine slows all of them.

Each ratio is the median over the rounds, with the smallest and the largest. `report` prints a row and, when the
environment names a file in BENCH_ROWS, appends it there as a line of JSON; `table.py` makes one table of them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

Call = Callable[[], object]
Calls = Mapping[str, Call]
Times = dict[str, list[float]]
PAUSE = 0.1  # seconds, for idle threads to stop spinning
PACKAGES = ("torch", "transformers", "mindspore", "onnxruntime", "grain", "pillow", "numpy")


@dataclass(frozen=True)
class Spread:
    """A median, and the smallest and the largest of what it was taken."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def interleaved(calls: Calls, options: argparse.Namespace, pause: float = 0.0) -> Times:
    """Seconds of each call, round by round, after one call of each to warm up; each round begins with another call.

    Args:
        options: of `parser`.
        pause: seconds before each call; a runtime's idle threads may go on spinning on cores that the next one needs.
    """
    return rounds({name: partial(_seconds, call, options) for name, call in calls.items()}, options, pause)


def apart(makers: Mapping[str, Callable[[], Call]], options: argparse.Namespace) -> Times:
    """`interleaved` for calls that are made, and wait for their turn, each in a process of its own.

    In one process they take memory from each other that is still in the cache: a step of ViT-B becomes 5 to 15% slower.
    """
    context = multiprocessing.get_context("spawn")
    ends, processes = {}, []
    for name, maker in makers.items():
        ends[name], there = context.Pipe()
        processes.append(context.Process(target=_serve, args=(there, maker, options), daemon=True))
        processes[-1].start()
        there.close()  # then this process is told when that one dies
    try:
        return rounds({name: partial(_ask, name, end) for name, end in ends.items()}, options, PAUSE)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(orders: Connection, maker: Callable[[], Call], options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(options.threads)
    call = maker()
    while True:
        orders.recv()
        orders.send(_seconds(call, options))


def _ask(name: str, end: Connection) -> float:
    try:
        end.send(None)
        return end.recv()
    except (EOFError, OSError):
        raise RuntimeError(f"the process of {name} has ended: see what it printed") from None


def _seconds(call: Call, options: argparse.Namespace) -> float:
    clock = time.process_time if options.cpu_time else time.perf_counter
    begin = clock()
    call()
    wait_for(options.device)
    return clock() - begin


def rounds(timed: Mapping[str, Callable[[], float]], options: argparse.Namespace, pause: float = 0.0) -> Times:
    """`interleaved` for calls that return their seconds."""
    times: Times = {name: [] for name in timed}
    names = list(timed)
    for round_number in range(options.rounds + 1):
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            seconds = timed[name]()
            if round_number:
                times[name].append(seconds)
    return times


def wait_for(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def short(model: str) -> str:
    """A preset's name without what all of them share."""
    return model.removesuffix("_patch16_224")


def ratio(times: Times, above: str, below: str, factor: float = 1.0) -> Spread:
    """`factor * above / below`, each round's own."""
    return Spread.of([factor * a / b for a, b in zip(times[above], times[below], strict=True)])


def rate(times: Times, name: str, amount: float) -> Spread:
    """`amount` per second."""
    return Spread.of([amount / seconds for seconds in times[name]])


def report(
    what: str,
    setting: str,
    value: Spread,
    options: argparse.Namespace,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """One row of the table; `at_least` and `at_most` are the aim."""
    bounds = {">=": at_least, "<=": at_most}
    aim = ", ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
    met = (at_least is None or value.median >= at_least) and (at_most is None or value.median <= at_most)
    verdict = ("met" if met else "missed") if aim else ""
    print(f"{what:<44} {setting:<34} {value!s:<28} {aim:<8} {verdict}", flush=True)
    row = {"what": what, "setting": setting, "value": str(value), "aim": aim, "verdict": verdict}
    threads = f"{options.threads}, CPU time" if options.cpu_time else str(options.threads)
    row |= {"threads": threads, "rounds": options.rounds, "machine": machine(options.device)}
    if path := os.environ.get("BENCH_ROWS"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def machine(device: str) -> str:
    """Processor or card, cores, versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"{_card(device)}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _card(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def parser(doc: str | None, *, rounds: int, threads: int = 2, batch: int | None = None) -> argparse.ArgumentParser:
    """With the flags that the scripts share."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--threads", type=int, default=threads)
    made.add_argument("--device", default="cpu", help="as PyTorch names it")
    made.add_argument("--cpu-time", action="store_true", help="of this process, not wall time: for a busy machine")
    if batch is not None:
        made.add_argument("--batch", type=int, default=batch)
    return made
