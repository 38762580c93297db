"""Exported models in Optimum's classes, unchanged: their answers are those of the session, bit for bit.

    make bench-clients
    python benchmarks/optimum_client.py [--python .venv-optimum/bin/python]

Exits with 1 when an answer differs. Where `model_type` is vit, Optimum needs nothing but the folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from onnx_models import CLASSES, CONFIG, HEADLESS, exported, pixels

from pcae_onnx.session import InferenceSession

PYTHON = Path(__file__).parents[1] / ".venv-optimum" / "bin" / "python"
MODELS = {
    "classes": (CONFIG, {"keep": 1.0, "class_names": CLASSES}),
    "reduced": (CONFIG, {"keep": 0.7, "class_names": CLASSES}),
    "features": (HEADLESS, {"keep": 1.0}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=PYTHON)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folders = {name: Path(root) / name for name in MODELS}
        for name, (config, options) in MODELS.items():
            exported(folders[name], config, **options)
        images = Path(root) / "pixels.npy"
        np.save(images, pixels(3))
        script = Path(__file__).with_name("optimum_models.py")
        subprocess.run([chosen.python, script, images, *folders.values()], check=True)
        equal = [np.array_equal(np.load(folder / "optimum.npy"), ours(folder)) for folder in folders.values()]
    for name, same in zip(MODELS, equal, strict=True):
        print(f"{name}: {'equal' if same else 'DIFFERENT'}")
    return 0 if all(equal) else 1


def ours(folder: Path) -> np.ndarray:
    """Logits, or features, of the same images."""
    outputs = InferenceSession(folder, threads=1).run(pixels(3))
    return outputs.last_hidden_state if outputs.logits is None else outputs.logits


if __name__ == "__main__":
    sys.exit(main())
