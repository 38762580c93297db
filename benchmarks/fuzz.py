"""Hostile input by the thousand: what reads files must refuse them in one line, quickly, in little memory.

    python benchmarks/fuzz.py [--cases 28000] [--kinds onnx npz ...] [--seed 0] [--first 0]

Each kind gets its share of the cases. A case fails when reading ends in anything but the project's own error of one
line, takes over 10 s of CPU time or 1 GiB, writes outside its folder, starts a program or looks up a pickled name. It
also fails when it is not harmless: when the library below, without the project's guards, dies of it or takes more than
1 s of CPU time or 50 MB (docs/security.md). Exits with 1 where one fails. `--kinds KIND --first N --cases 1` repeats
case N.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from fuzz import harness
from fuzz.registry import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=28_000)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    share = -(-chosen.cases // len(chosen.kinds))
    failures, cases = 0, 0
    print("kind             cases  refused  accepted  failed  slowest s  peak MB  took s")
    with tempfile.TemporaryDirectory() as root:
        for kind in chosen.kinds:
            start = time.monotonic()
            numbers = range(chosen.first, chosen.first + share)
            total, worker = harness.run(kind, numbers, Path(root), chosen.seed)
            worker.close()  # so that the next kind's memory is its own
            counts, took = total.counts, time.monotonic() - start
            print(
                f"{kind:<14}{counts.total():>8}{counts['refused']:>9}{counts['accepted']:>10}{len(total.failures):>8}"
                f"{total.slowest:>11.2f}{total.peak_mb:>9.0f}{took:>8.0f}",
                flush=True,
            )
            for line in total.failures:
                print(f"FAILED {line}", flush=True)
            failures, cases = failures + len(total.failures), cases + counts.total()
    print(f"{cases} cases, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
