"""No flakes: healthy backends must pass the conformance suite with any seed.

    python benchmarks/conformance_seeds.py --backends numpy torch --seeds 20 --max-examples 200

Prints each failure, and the largest error of every check in units of its tolerance over all seeds.
"""

from __future__ import annotations

import argparse
import sys

from pcae_conformance.report import failures
from pcae_conformance.runner import Options, Result, run, suit_small_models


def worst_of_each_check(results: list[Result]) -> dict[str, Result]:
    worst: dict[str, Result] = {}
    for result in results:
        name = f"{result.check.name} {result.dtype}"
        if name not in worst or result.worst > worst[name].worst:
            worst[name] = result
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["numpy", "torch"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--max-examples", type=int, default=200)
    arguments = parser.parse_args()
    suit_small_models(compiled=False)
    failed = 0
    for name in arguments.backends:
        results = []
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            of_seed = run(Options(name, seed=seed, max_examples=arguments.max_examples))
            results += of_seed
            failed += len(failures(of_seed))
            print(*failures(of_seed), f"{name} seed {seed}: {len(failures(of_seed))} failures", sep="\n", flush=True)
        for label, result in worst_of_each_check(results).items():
            print(f"{name:8} {label:36} {result.worst:10.3g}  {result.worst_input}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
