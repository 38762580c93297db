"""`pcae_mindspore.Encoder` as other people's training code uses it."""

from __future__ import annotations

import copy
from pathlib import Path

import encoders
import numpy as np
import pytest
from optional import skip_module_without_mindspore

import pcae_mindspore
from pcae_core import ConfigError, pretrained, registry
from pcae_core.errors import ShapeError

skip_module_without_mindspore()
Encoder = pcae_mindspore.Encoder  # prepares the environment, which MindSpore reads when it is imported

import mindspore as ms  # noqa: E402

from pcae_mindspore.ops import restore_grid  # noqa: E402

IMAGES = ms.Tensor(encoders.IMAGES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return encoders.write(tmp_path_factory.mktemp("encoder") / "small")


@pytest.fixture
def encoder(folder) -> Encoder:
    return Encoder.from_pretrained(folder)


def test_it_gives_what_the_reference_gives(encoder, folder):
    found = pretrained.load(folder)
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.2,) * 3)
    for keep in (1.0, 0.7):
        expected = registry.create("numpy").encode(found.config.model, found.encoder, encoders.IMAGES, keep)
        encoder.reduction.keep = keep
        hidden, ids, logits = encoder(IMAGES)
        np.testing.assert_allclose(hidden.asnumpy(), expected.last_hidden_state, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(ids.asnumpy(), expected.kept_ids)
        np.testing.assert_allclose(logits.asnumpy(), expected.logits, rtol=0, atol=1e-5)


def test_parameters_and_deepcopy(encoder, folder, tmp_path):
    assert set(encoder.parameters_dict()) == set(pretrained.load(folder).encoder)
    encoder.reduction.keep = 0.7
    expected = encoder(IMAGES)[0].asnumpy()
    other = copy.deepcopy(encoder)
    for parameter in other.get_parameters():
        ms.ops.assign(parameter, ms.ops.zeros_like(parameter))
    np.testing.assert_array_equal(encoder(IMAGES)[0].asnumpy(), expected)
    ms.save_checkpoint(encoder, str(tmp_path / "encoder.ckpt"))
    assert ms.load_param_into_net(other, ms.load_checkpoint(str(tmp_path / "encoder.ckpt"))) == ([], [])
    np.testing.assert_array_equal(other(IMAGES)[0].asnumpy(), expected)


def test_gradients_reach_every_trainable_parameter(encoder):
    encoder.reduction.keep = 0.7
    trainable = encoder.trainable_params()
    assert {p.name for p in encoder.get_parameters()} - {p.name for p in trainable} == {"pos_embed"}

    def loss(images):
        hidden, _, logits = encoder(images)
        return (hidden * hidden).sum() + logits.sum()

    _, gradients = ms.value_and_grad(loss, None, ms.ParameterTuple(trainable))(IMAGES)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)


@pytest.mark.parametrize(("dtype", "compute"), [(ms.float16, None), (ms.float32, ms.float16)])
def test_half_precision(encoder, folder, dtype, compute):
    expected = encoder(IMAGES)[0].asnumpy()
    hidden = Encoder.from_pretrained(folder, dtype=dtype, compute=compute)(IMAGES)[0]
    assert hidden.dtype == dtype
    np.testing.assert_allclose(hidden.asnumpy(), expected, rtol=0, atol=0.03)


def test_compiled(encoder):
    encoder.reduction.keep = 0.7
    expected = encoder(IMAGES)[0].asnumpy()

    @ms.jit
    def dense(images):
        hidden, ids, _ = encoder(images)
        return hidden, restore_grid(hidden[:, 1:], ids, 16)

    hidden, grid = dense(IMAGES)
    np.testing.assert_allclose(hidden.asnumpy(), expected, rtol=0, atol=1e-5)
    assert grid.shape == (4, 16, 24)


def test_wrong_requests(encoder):
    with pytest.raises(ConfigError, match=r"reduction.keep must be in \(0, 1\]"):
        encoder.reduction.keep = 0.0
    with pytest.raises(ShapeError, match=r"images must be \(B, 3, 16, 16\), not \(1, 3, 20, 20\)"):
        encoder(ms.ops.zeros((1, 3, 20, 20)))
