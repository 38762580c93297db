"""The kinds by name, imported only where they are used."""

from __future__ import annotations

KINDS = {
    "checkpoint": "fuzz.checkpoints:Checkpoints",
    "encoder": "fuzz.checkpoints:Encoders",
    "timm": "fuzz.conversions:TimmFiles",
    "huggingface": "fuzz.conversions:HuggingFaceFolders",
    "pth": "fuzz.conversions:TorchFiles",
    "weights-npz": "fuzz.conversions:NumpyFiles",
    "yaml": "fuzz.settings:Settings",
    "onnx": "fuzz.models:Models",
    "images": "fuzz.pictures:Pictures",
    "npz": "fuzz.archives:Archives",
    "folders": "fuzz.folders:Folders",
    "arrow": "fuzz.arrow_folders:ArrowFolders",
    "metrics": "fuzz.measurements:Measurements",
    "ckpt": "fuzz.mindspore_files:MindSporeFiles",
}
NO_INPUT = {"misbehaving": "fuzz.misbehaving:Misbehaving"}
"""Tries the harness itself."""
