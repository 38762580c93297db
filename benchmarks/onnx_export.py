"""`pcae export` of a large model, verification included: wall time and peak memory.

    python benchmarks/onnx_export.py [--model vit_base_patch16_224] [--threads 2] [--dynamic-keep]

The checkpoint holds initial weights. Memory is the largest resident set of the exporting process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pcae_core import checkpoint, parameters
from pcae_core.config import ModelConfig, PretrainConfig


def write_checkpoint(folder: Path, preset: str) -> None:
    model = ModelConfig.preset(preset)
    position = checkpoint.DataPosition(fingerprint="none", num_samples=1, samples_seen=0)
    state = parameters.pretraining_state(model, seed=0)
    checkpoint.save(folder / "checkpoints", state, PretrainConfig(model=model), position, {}, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dynamic-keep", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "out"
        # In a process of its own: what this process has held would count as the exporting process's memory
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(run, options.model))
        writer.start()
        writer.join()
        command = [sys.executable, "-m", "pcae.cli", "export", str(run), str(out)]
        command += ["--dynamic-keep"] if options.dynamic_keep else []
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            sys.exit("the export failed")
        size = (out / "model.onnx").stat().st_size
    peak = usage.ru_maxrss * 1024
    print(
        f"{options.model}, {options.threads} threads: {seconds:.1f} s, peak {peak / 1e6:.0f} MB = {peak / size:.2f} x"
    )


if __name__ == "__main__":
    main()
