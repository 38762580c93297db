"""Small images and the files that hold them, for the tests of data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from pcae_core.config import DataConfig, ModelConfig

MODEL = ModelConfig(image_size=8, patch_size=4, in_chans=1)
COLOURS = np.random.default_rng(0).integers(0, 256, (10, 12, 9, 3), dtype=np.uint8)
GREYS = COLOURS[..., 0]
WHOLE = DataConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hflip=False)


def save_image(path: Path, values=GREYS[0]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def save_npz(path: Path, **arrays) -> Path:
    np.savez(path, **{"images": GREYS} | arrays)
    return path


def fix_walk(monkeypatch, reverse: bool) -> None:
    """Let `os.walk` give the folders of a folder in alphabetical order, or in reverse, whatever the disk says."""
    walk = os.walk

    def walked(*arguments, **options):
        for folder, subfolders, files in walk(*arguments, **options):
            subfolders.sort(reverse=reverse)
            yield folder, subfolders, files

    monkeypatch.setattr(os, "walk", walked)


def load_array(source, index: int) -> np.ndarray:
    return np.asarray(source.load(index))


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
