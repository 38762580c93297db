"""`pcae convert` in this process; small models of other people, by timm's names."""

from __future__ import annotations

from pathlib import Path

import encoders
import numpy as np
import refusals
import torch

from pcae.cli import main as cli
from pcae_core import ModelConfig, pretrained

SMALL = ModelConfig(image_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=3, mlp_ratio=2.0)


def convert(*arguments: object) -> None:
    assert cli.run(["convert", *map(str, arguments)]) == 0


def refused(capsys, *arguments: object) -> str:
    """The one line that a wrong request gets; the report may stand before it."""
    capsys.readouterr()  # what other libraries print
    return refusals.refused(capsys, "convert", *arguments, prints=True)


def weights(seed: int = 0, model: ModelConfig = SMALL) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in encoders.weights(model, seed).items()}


def same(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    """An encoder's folder holds exactly these tensors."""
    found = pretrained.load(folder).encoder
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value.float().numpy(), err_msg=name)
