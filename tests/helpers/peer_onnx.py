"""An exported model in other people's tools; run with the Python of .venv-peers, without PCAE.

python peer_onnx.py slim MODEL SLIMMED
python peer_onnx.py openvino MODEL PIXELS.npy ANSWERS.npz KEEP...
"""

from __future__ import annotations

import sys

import numpy as np


def slim(model: str, slimmed: str) -> None:
    import onnxslim

    onnxslim.slim(model, slimmed)


def openvino(model: str, pixels: str, answers: str, *keeps: str) -> None:
    """Writes `ids_KEEP` and `hidden_KEEP` of each ratio."""
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images, found = np.load(pixels), {}
    for keep in keeps:
        outputs = compiled({"pixel_values": images, "keep": np.array(float(keep), np.float32)})
        found[f"ids_{keep}"], found[f"hidden_{keep}"] = outputs["kept_ids"], outputs["last_hidden_state"]
    np.savez(answers, **found)


if __name__ == "__main__":
    {"slim": slim, "openvino": openvino}[sys.argv[1]](*sys.argv[2:])
