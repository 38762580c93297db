"""What the speed benchmarks state themselves: MAE, ToMe and the cost model of scale."""

import argparse
import sys
from pathlib import Path

import pytest
import torch
from conversions import convert
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from pcae_core import ModelConfig, cost, pretrained
from pcae_torch import layers, model, ops

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # last: nothing of that folder may hide a package

import mae
import scale
import tome

SMALL = ModelConfig(
    image_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=4, decoder_embed_dim=8, decoder_depth=2,
    decoder_num_heads=2,
)  # fmt: skip
BASE = ModelConfig.preset("vit_base_patch16_224")
DECODER = {"decoder_hidden_size": 24, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2}


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    shape = {"image_size": 20, "patch_size": 4, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ViTMAEConfig(
        **shape, **DECODER, intermediate_size=96, decoder_intermediate_size=48, mask_ratio=0.7, norm_pix_loss=True
    )
    made = ViTMAEForPreTraining(config).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return made


def test_our_mae_is_theirs(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "ours", "--waive", "*decoder_pred.*")
    found = pretrained.load(tmp_path / "ours")
    config = found.config.model.model_copy(update={"mask_ratio": 0.7})
    weights = {name: torch.from_numpy(value) for name, value in {**found.encoder, **found.decoder}.items()}
    last = theirs.decoder.decoder_pred  # predicts row, column, channel; ours channel, row, column
    for name, value in (("weight", last.weight), ("bias", last.bias)):
        ours = value.detach().unflatten(0, (4, 4, 3)).movedim(2, 0).flatten(0, 2)
        weights[f"decoder_pred.{name}"] = ours
    module = mae.MAE(config)
    model.load(module, weights)
    images, noise = torch.randn(2, 3, 20, 20), torch.rand(2, config.num_patches)
    split = ops.split_by_noise(noise, config.num_visible)
    loss = mae.loss(module, ops.patchify(images, 4), *split)
    torch.testing.assert_close(loss, theirs(images, noise=noise).loss, rtol=1e-5, atol=0)


@pytest.mark.parametrize("r", [0, 1, 3, 4])
def test_merging_keeps_mass_and_cls(r):
    generator = torch.Generator().manual_seed(r)
    x, keys = (torch.randn(3, 9, width, generator=generator, dtype=torch.float64) for width in (8, 4))
    size = torch.randint(1, 5, (3, 9, 1), generator=generator).double()
    merged, sizes = tome.merge(x, keys, size, r)
    assert merged.shape == (3, 9 - r, 8)
    torch.testing.assert_close(sizes.sum(dim=1), size.sum(dim=1))
    torch.testing.assert_close((merged * sizes).sum(dim=1), (x * size).sum(dim=1))
    torch.testing.assert_close(merged[:, 0], x[:, 0])


def test_the_most_similar_pair_is_merged():
    keys = torch.eye(6, dtype=torch.float64)[None]
    keys[0, 4] = keys[0, 1]
    x = torch.arange(6.0, dtype=torch.float64)[None, :, None]
    merged, sizes = tome.merge(x, keys, torch.ones_like(x), 1)
    assert merged.flatten().tolist() == [0, 2, 2.5, 3, 5]
    assert sizes.flatten().tolist() == [1, 1, 2, 1, 1]


def test_equal_tokens_count_as_often_as_they_were():
    """Attention over merged tokens is that over their originals: the reason for adding `log s`."""
    torch.manual_seed(0)
    own = layers.Block(8, 2, 16, 1e-6).double()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    twice = torch.cat([x, x[:, 3:]], dim=1)
    size = torch.tensor([1.0, 1, 1, 2, 2], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(tome.block(own, x, size, 0)[0], own(twice)[:, :5])


@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5])
def test_tome_gets_the_same_operations(keep):
    wanted = cost.encoder_macs(BASE, keep)
    assert tome.macs(BASE, tome.fewer_for(BASE, wanted)) == pytest.approx(wanted, rel=0.005)
    assert tome.macs(BASE, [0] * 12) == cost.encoder_macs(BASE)


def test_scale_counts_what_is_trained_and_hides_what_it_can():
    trained = [p for p in model.Student(SMALL).parameters() if p.requires_grad]
    assert scale.num_parameters(SMALL) == sum(p.numel() for p in trained)
    given = {"batch": 64, "peak": 1.0, "utilisation": 0.5, "cores": 1, "core_rate": 1e9, "node": 2, "network": 1.0}
    slow = scale.step(SMALL, 2, argparse.Namespace(**given, link=1e-6))
    assert (slow.limit, slow.seconds) == ("exchange", slow.compute + slow.exposed)
    assert slow.compute == pytest.approx(2 * 32 * cost.pretraining_macs(SMALL) / 0.5e12)
    assert scale.step(SMALL, 2, argparse.Namespace(**given, link=1e6)).limit == "compute"
    assert scale.step(SMALL, 1, argparse.Namespace(**given, link=1e-6)).exposed == 0
