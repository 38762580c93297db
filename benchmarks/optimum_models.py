"""Runs exported folders by Optimum; `optimum_client.py` starts it in an environment that has Optimum.

    python optimum_models.py PIXELS.npy FOLDER ...

Writes `optimum.npy` into each folder: the logits, or the features where the folder is called so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from optimum.onnxruntime import ORTModelForFeatureExtraction, ORTModelForImageClassification
from transformers import PretrainedConfig


def main(pixels: str, *folders: str) -> None:
    for folder in map(Path, folders):
        config = PretrainedConfig.from_pretrained(folder)
        kind = ORTModelForFeatureExtraction if folder.name == "features" else ORTModelForImageClassification
        own = {} if config.model_type == "vit" else {"config": config}  # which their AutoConfig does not know
        model = kind.from_pretrained(folder, **own)
        out = model(pixel_values=np.load(pixels))
        np.save(folder / "optimum.npy", out.last_hidden_state if folder.name == "features" else out.logits)
        print(f"{folder.name}: {type(model).__name__}, model_type {config.model_type}")


if __name__ == "__main__":
    main(*sys.argv[1:])
