"""config.json and preprocessor_config.json beside a model, as Hugging Face's library reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_models import CLASSES, CONFIG, HEADLESS, exported, pixels, weights
from safetensors.numpy import save

from pcae_onnx.session import InferenceSession


@pytest.mark.parametrize("options", [{"keep": None}, {"keep": 0.7}, {"keep": 1.0}, {"keep": 1.0, "dtype": "int8"}])
def test_config_says_nothing_that_hugging_face_reads_otherwise(tmp_path, options):
    from transformers import AutoConfig, PretrainedConfig, ViTConfig

    exported(tmp_path, class_names=CLASSES, **options)
    written = json.loads((tmp_path / "config.json").read_text())
    theirs = {*vars(ViTConfig()), *PretrainedConfig().to_dict(), *dir(ViTConfig)} | {"num_labels", "torch_dtype"}
    assert {key for key in written if key not in theirs} == {"pcae"}
    read = PretrainedConfig.from_pretrained(tmp_path)
    assert read.id2label == dict(enumerate(CLASSES))
    assert read.dtype is None
    assert read.pcae["schedule"]["keep"] == options["keep"]
    assert PretrainedConfig.from_dict(read.to_dict()).pcae == read.pcae
    if options["keep"] == 1.0:
        config = AutoConfig.from_pretrained(tmp_path)
        assert isinstance(config, ViTConfig)
    else:
        assert written["model_type"] == "pcae"
        with pytest.raises(ValueError, match="pcae"):
            AutoConfig.from_pretrained(tmp_path)


def test_a_model_that_says_vit_answers_as_their_vit(tmp_path):
    """Their model with our config.json and, by their names, the same weights."""
    import torch
    from transformers import ViTForImageClassification

    from pcae_core.convert.names import theirs

    exported(tmp_path, keep=1.0)
    tensors = {}
    for name, value in weights().items():
        names, prefix = theirs(name, "hf"), "" if name.startswith("head.") else "vit."
        for hf_name, part in zip(names, np.split(value, len(names)), strict=True):
            tensors[f"{prefix}{hf_name}"] = part
    patches = "vit.embeddings.patch_embeddings.projection.weight"
    tensors[patches] = tensors[patches].reshape(CONFIG.embed_dim, CONFIG.in_chans, CONFIG.patch_size, -1)
    (tmp_path / "model.safetensors").write_bytes(save(tensors))
    model = ViTForImageClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels(2))).logits.numpy()
    np.testing.assert_allclose(InferenceSession(tmp_path).run(pixels(2)).logits, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "task"), [(HEADLESS, None), (CONFIG, "feature-extraction"), (CONFIG, None)], ids=["none", "left", "head"]
)
def test_config_of_a_vit_says_whether_there_is_a_head(tmp_path, config, task):
    exported(tmp_path, config, keep=1.0, task=task)
    written = json.loads((tmp_path / "config.json").read_text())
    head = config is CONFIG and task is None
    assert written["architectures"] == ["ViTForImageClassification" if head else "ViTModel"]
    assert ("id2label" in written) == head


def test_a_head_of_the_mean_is_no_vit_of_theirs(tmp_path):
    exported(tmp_path, CONFIG.model_copy(update={"pooling": "mean"}), keep=1.0)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "pcae"


@pytest.mark.parametrize(("size", "most"), [((24, 24), 0.001), ((50, 37), 6.0), ((200, 320), 1.0)])
def test_image_processor_of_transformers_prepares_nearly_the_same(tmp_path, size, most):
    """Mean difference in grey levels on noise, the worst picture; other crops differ by ten times as much."""
    from PIL import Image
    from transformers import AutoImageProcessor

    exported(tmp_path, keep=1.0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    theirs = AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)(picture, return_tensors="np")
    session = InferenceSession(tmp_path)
    difference = session.preprocess([picture]) - theirs["pixel_values"]
    grey_levels = 255 * np.reshape(session.info.preprocessing.std, (3, 1, 1))
    assert np.abs(difference * grey_levels).mean() < most
