"""Training runs that are killed, a hundred times and more, each going on where the one before died.

    python benchmarks/faults.py [--kills 100] [--seed 0]

tests/helpers/killing.py says where they die and what must hold; this fails when it does not. About two seconds a death.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import killing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = killing.kill_runs(Path(folder), options.kills, options.seed)
    deaths = ", ".join(f"{count} at {kind}s" for kind, count in sorted(outcome.deaths.items()))
    print(f"{outcome.deaths.total()} deaths: {deaths}; every checkpoint could be loaded")
    print(f"at most {outcome.most_lost} steps were lost, of an interval of {killing.EVERY}")
    print(f"{outcome.ended} runs came to their end, the same bit for bit as one left alone")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
