"""What a block is made of besides attention, stated a second time. Letters: B images, D width."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from pcae_conformance import definitions, strategies
from pcae_conformance.check import WIDE, check
from pcae_conformance.dtypes import Floats
from pcae_conformance.model_cases import ModelCase, Parameters
from pcae_conformance.subject import Subject
from pcae_conformance.tolerances import MODEL

SHARP = [
    ModelCase(batch=2, grid=3, chans=3, patch=2, depth=2, norm_eps=1e-2),
    ModelCase(grid=2, activation="gelu_tanh"),
    ModelCase(grid=2, activation="quick_gelu", pre_norm=True, norm_eps=1e-2),
    ModelCase(grid=2, patch_bias=False),
]


def _normed(case: ModelCase, p: Parameters, name: str, token: list[float]) -> list[float]:
    return definitions.layer_norm(token, p[f"{name}.weight"], p[f"{name}.bias"], case.norm_eps)


def _mlp_block(case: ModelCase, p: Parameters, name: str, token: list[float]) -> list[float]:
    """A block whose attention gives its bias alone."""
    token = [x + b for x, b in zip(token, p[f"{name}.attn.proj.bias"], strict=True)]
    hidden = definitions.linear(
        _normed(case, p, f"{name}.norm2", token), p[f"{name}.mlp.fc1.weight"], p[f"{name}.mlp.fc1.bias"]
    )
    active = [definitions.activation(x, case.activation) for x in hidden]
    answer = definitions.linear(active, p[f"{name}.mlp.fc2.weight"], p[f"{name}.mlp.fc2.bias"])
    return [x + y for x, y in zip(token, answer, strict=True)]


def _embedded(case: ModelCase, p: Parameters, image: Floats) -> list[list[float]]:
    """The prefix tokens and the patches of an image (C, H, W), with their positions, as the first block gets them."""
    weight = p["patch_embed.proj.weight"].reshape(case.width, -1)
    bias = p["patch_embed.proj.bias"] if case.patch_bias else np.zeros(case.width)
    places = itertools.product(range(case.grid), repeat=2)
    patches = [definitions.linear(definitions.patch(image, case.patch, *place), weight, bias) for place in places]
    tokens = [*p["cls_token"][0].tolist(), *patches]
    placed = [[x + y for x, y in zip(*pair, strict=True)] for pair in zip(tokens, p["pos_embed"][0], strict=True)]
    return [_normed(case, p, "norm_pre", token) for token in placed] if case.pre_norm else placed


def _features(case: ModelCase, p: Parameters, image: Floats) -> list[list[float]]:
    tokens = _embedded(case, p, image)
    for i in range(case.depth):
        tokens = [_mlp_block(case, p, f"blocks.{i}", token) for token in tokens]
    return [_normed(case, p, "norm", token) for token in tokens]


@check(
    "layers-definition",
    statement="with attention off, the encoder equals its parts stated a second time: projection of the patches, "
    "positions, norms, MLPs and their activation",
    strategy=strategies.models(),
    examples=SHARP,
    dtypes=WIDE,
)
def definition(subject: Subject, case: ModelCase) -> None:
    """The output layer of every attention is 0, so that each token goes its own way."""
    case = dataclasses.replace(case, keep=1.0, classes=0)
    images, student = case.images(subject.dtype), case.student(subject.dtype)
    for i in range(case.depth):
        student[f"blocks.{i}.attn.proj.weight"] *= 0.0
    out = subject.backend.encode(case.config(), subject.own_all(student), subject.own(images), 1.0)
    expected = np.array([_features(case, student, image) for image in images])
    subject.close("last hidden state", out.last_hidden_state, expected, MODEL[subject.dtype], subject.dtype)
