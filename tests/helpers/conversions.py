"""`pcae convert` in this process; small models of other people, by timm's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pcae.cli import main as cli
from pcae_core import ModelConfig, parameters, pretrained

SMALL = ModelConfig(image_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=3, mlp_ratio=2.0)


def convert(*arguments: object) -> None:
    assert cli.run(["convert", *map(str, arguments)]) == 0


def refused(capsys, *arguments: object) -> str:
    """The one line that a wrong request gets; the report may stand before it."""
    capsys.readouterr()  # what other libraries print
    assert cli.run(["convert", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pcae: error: ")
    assert error.count("\n") == 1
    return error


def weights(seed: int = 0, model: ModelConfig = SMALL) -> dict[str, torch.Tensor]:
    """Every tensor random: fresh biases are 0 and would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    shapes = parameters.encoder_shapes(model)
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def same(folder: Path, expected: dict[str, torch.Tensor]) -> None:
    """An encoder's folder holds exactly these tensors."""
    found = pretrained.load(folder).encoder
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value.float().numpy(), err_msg=name)
