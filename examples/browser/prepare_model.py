"""Copy an exported model, less the default of its input `keep`: ONNX Runtime Web sets no input that has one.

python prepare_model.py EXPORTED OUTDIR
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import onnx

from pcae_core.errors import PcaeError
from pcae_onnx import guard


def prepare(source: Path, target: Path) -> None:
    """Write `target` from the folder `source`. Raises ModelFileError where that holds no model of ours."""
    guard.inspect(source / "model.onnx")
    model = onnx.load(source / "model.onnx")
    defaults = [tensor for tensor in model.graph.initializer if tensor.name == "keep"]
    for tensor in defaults:
        model.graph.initializer.remove(tensor)
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(source / name, target / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path)
    parser.add_argument("outdir", type=Path)
    chosen = parser.parse_args()
    try:
        prepare(chosen.exported, chosen.outdir)
    except (PcaeError, OSError) as error:
        print(f"prepare_model: error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {chosen.outdir / 'model.onnx'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
