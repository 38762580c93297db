"""A reader with only the guides gets from an empty folder to the end of each by copy and paste."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import guides
import numpy as np
import pytest
import torch
from optional import needs_mindspore
from PIL import Image

from pcae_core import ModelConfig, parameters

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "docs" / "index.md"
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the guides ask the service by curl")


def write_photos(folder: Path) -> None:
    """A reader's own images: cats with a bright square, dogs with none."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for name in ("cats", "dogs"):
            target = folder / "photos" / split / name
            target.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
                pixels[12:36, 12:36] += 150 * (name == "cats")
                Image.fromarray(pixels).save(target / f"{i}.jpg")
    for name in ("cat", "dog"):
        shutil.copyfile(folder / "photos" / "val" / f"{name}s" / "0.jpg", folder / f"{name}.jpg")


def write_strangers(folder: Path) -> None:
    """Other people's ViTs, random, of published widths and depths, and narrow between them."""
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTModel

    def encoder(width: int) -> dict[str, torch.Tensor]:
        config = ModelConfig(
            image_size=32, patch_size=16, embed_dim=width, depth=12, num_heads=12, mlp_ratio=64 / width
        )
        whole = parameters.initial_parameters(config, seed=0)
        return {name: torch.tensor(whole[name]).half() for name in parameters.encoder_shapes(config)}

    torch.save({"model": encoder(768)}, folder / "mae_pretrain_vit_base.pth")
    torch.save({"student": encoder(384), "teacher": encoder(384)}, folder / "dino_vits16_full.pth")
    save_file(encoder(384), folder / "vit_small.safetensors")
    shape = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 3}
    ViTModel(ViTConfig(**shape)).save_pretrained(folder / "vit-folder")


def write_encoder(folder: Path) -> None:
    import encoders

    encoders.write(folder / "mae-base")


def write_settings(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    write_strangers(folder)


def nothing(folder: Path) -> None:
    """The guide goes on from what the first page leaves."""


# Each guide, and what a reader has before it beside what the first page leaves.
GUIDES: dict[str, Callable[[Path], None]] = {
    "README.md": write_settings,
    "docs/api.md": nothing,
    "docs/command-line.md": nothing,
    "docs/converting.md": write_strangers,
    "docs/finetuning.md": nothing,
    "docs/library.md": write_encoder,
    "docs/method.md": nothing,
    "docs/mindspore.md": nothing,
    "docs/onnx.md": nothing,
    "docs/pictures.md": nothing,
    "docs/serving.md": nothing,
    "docs/training.md": nothing,
}


@pytest.fixture(scope="module")
def after_first_page(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("reader")
    write_photos(folder)
    return folder, guides.run(FIRST, folder)


def test_first_page(after_first_page):
    folder, printed = after_first_page
    assert (folder / "runs" / "photos" / "report.html").is_file()
    assert (folder / "models" / "photos" / "model.onnx").is_file()
    assert '"kept_ids"' in printed  # the service's answer
    assert printed.rpartition("\n(")[2].startswith("31, 64) [")  # what Python printed


GUIDES_HERE = [
    pytest.param(guide, marks=needs_mindspore) if guide == "docs/mindspore.md" else guide for guide in GUIDES
]


@pytest.mark.parametrize("guide", GUIDES_HERE)
def test_guide(guide, after_first_page, tmp_path):
    folder = tmp_path / "reader"
    shutil.copytree(after_first_page[0], folder)
    GUIDES[guide](folder)
    guides.run(ROOT / guide, folder)


def test_every_block_runs_or_says_why_not():
    pages = [ROOT / "README.md", ROOT / "examples" / "browser" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    run = {FIRST, *(ROOT / guide for guide in GUIDES)}
    silent = [
        f"{page.name}: {block.code.splitlines()[0]}"
        for page in pages
        for block in guides.blocks(page)
        if block.reason is None and page not in run
    ]
    assert silent == []
    assert all(any(block.reason is None for block in guides.blocks(page)) for page in run)


def test_a_wrong_block_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\ntrue\n```\n\n```python\nraise SystemExit(3)\n```\n\n```bash\ntouch reached\n```\n")
    (tmp_path / "reader").mkdir()
    with pytest.raises(AssertionError, match=r"block 2 of page\.md"):
        guides.run(page, tmp_path / "reader")
    assert not (tmp_path / "reader" / "reached").exists()
