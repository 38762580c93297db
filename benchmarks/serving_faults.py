"""`pcae serve` under attack: hostile bodies, slow clients, many connections; good requests must be answered throughout.

    python benchmarks/serving_faults.py [--seconds 20] [--connections 1000] [--growth-mb 48]

One client asks good requests all the time, ten a second at most. Meanwhile, one after another: hostile bodies (the
fuzzer's pictures and JSON), binary tensors and packed bodies that are a little wrong, packed bodies that are too large
once unpacked, headers that come a byte at a time, bodies that do, both on `--connections` at once, connections that say
nothing, headers of a megabyte, answers that nobody reads. Exits with 1 when a good request fails, an answer is a 500,
the service ends, or its memory is over `--growth-mb` above that of the first round of attacks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import attacks
import services
from onnx_models import exported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--growth-mb", type=float, default=48)
    chosen = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        exported(Path(folder), keep=None)
        with services.serving(Path(folder), "--read-timeout", 5, "--max-body-mb", 4, "--max-pixels", 10**6) as client:
            memory = []
            for turn in range(2):
                for attack in attacks.ATTACKS:
                    found = attacks.under(client, attack, chosen.seconds / 2, chosen.connections)
                    memory.append(found.memory_mb)
                    fine = fine and not found.failures
                    print(f"{turn} {attack.__name__:<18} {found}", flush=True)
            half = len(memory) // 2
            first, second = max(memory[:half]), max(memory[half:])
            print(f"memory: at most {first:.0f} MB in the first round, {second:.0f} in the second")
    return 0 if fine and second - first <= chosen.growth_mb else 1


if __name__ == "__main__":
    sys.exit(main())
