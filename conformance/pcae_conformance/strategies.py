"""Strategies of hypothesis, by domain. They draw cases, never arrays, and so shrink fast.

Shapes come from small sets: more variety finds no more faults, and a backend that compiles for each shape stays fast.
Ranges are limited to inputs that a user could have, so that every failure matters.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from hypothesis import strategies as st

from pcae_conformance.cases import MaskCase, ParametersCase, ScheduleCase
from pcae_conformance.finetune_cases import FinetuneCase
from pcae_conformance.image_cases import GridCase, GridKind, ImagesCase
from pcae_conformance.model_cases import ModelCase, TrainCase
from pcae_conformance.token_cases import PairCase, PairKind, ScoreKind, ScoresCase, TokenKind, TokensCase
from pcae_core.config import Activation
from pcae_core.contract import Center

SEEDS = st.integers(0, 9999)
BATCHES = st.sampled_from([1, 2, 3])
LENGTHS = st.sampled_from([1, 2, 3, 5, 8, 13])
WIDTHS = st.sampled_from([2, 4, 7, 16])
EXPONENTS = st.sampled_from([0, 0, 0, -15, 15, -3, 2])
CENTERS: st.SearchStrategy[Center] = st.sampled_from(get_args(Center))
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(get_args(Activation))
MOMENTA = st.sampled_from([0.0, 1.0, 0.5, 0.9, 0.996, 0.9999])
KEEPS = st.sampled_from([0.5, 1.0, 0.3, 0.7, 0.9, 0.05])


@st.composite
def tokens(draw: st.DrawFn, kinds: tuple[str, ...] = get_args(TokenKind), min_length: int = 1) -> TokensCase:
    """Token sequences of the given kinds, after some prefix tokens, with `k` tokens to keep."""
    length = draw(LENGTHS.filter(lambda n: n >= min_length))
    return TokensCase(
        batch=draw(BATCHES),
        length=length,
        width=draw(WIDTHS),
        kind=draw(st.sampled_from(kinds)),
        exponent=draw(EXPONENTS),
        k=draw(st.integers(1, length)),
        prefix=draw(st.sampled_from([0, 1, 2])),
        center=draw(CENTERS),
        seed=draw(SEEDS),
    )


def plain_tokens(kinds: tuple[str, ...] = get_args(TokenKind), min_length: int = 1) -> st.SearchStrategy[TokensCase]:
    """As `tokens`, without prefix tokens."""
    return tokens(kinds, min_length).map(lambda case: dataclasses.replace(case, prefix=0))


def square_tokens() -> st.SearchStrategy[TokensCase]:
    """Well-conditioned token sequences whose length equals their width, so that they can be images too."""
    cases = st.builds(
        TokensCase, batch=BATCHES, length=st.sampled_from([3, 5, 8]), kind=st.just("offset"), center=CENTERS, seed=SEEDS
    )
    return cases.map(lambda case: dataclasses.replace(case, width=case.length))


@st.composite
def scores(draw: st.DrawFn, kinds: tuple[str, ...] = get_args(ScoreKind)) -> ScoresCase:
    """Scores with and without ties, with `k` of them to keep."""
    length = draw(LENGTHS)
    return ScoresCase(
        batch=draw(BATCHES),
        length=length,
        k=draw(st.integers(1, length)),
        kind=draw(st.sampled_from(kinds)),
        seed=draw(SEEDS),
    )


@st.composite
def noise(draw: st.DrawFn) -> ScoresCase:
    """Noise that splits at least two patches, at least one of them masked; ties may occur."""
    length = draw(LENGTHS.filter(lambda n: n > 1))
    return ScoresCase(
        batch=draw(BATCHES),
        length=length,
        k=draw(st.integers(1, length - 1)),
        kind=draw(st.sampled_from(["normal", "few", "near_ties", "all_equal"])),
        seed=draw(SEEDS),
    )


def pairs() -> st.SearchStrategy[PairCase]:
    """Predictions and targets."""
    return st.builds(
        PairCase,
        batch=BATCHES,
        length=st.sampled_from([1, 2, 5]),
        width=WIDTHS,
        kind=st.sampled_from(get_args(PairKind)),
        exponent=EXPONENTS,
        seed=SEEDS,
    )


def parameters() -> st.SearchStrategy[ParametersCase]:
    """Parameter dictionaries: mixed shapes, scalars, arrays without elements, no arrays at all."""
    return st.builds(ParametersCase, count=st.integers(0, 7), momentum=MOMENTA, seed=SEEDS)


@st.composite
def grids(draw: st.DrawFn, everything: bool = False) -> GridCase:
    """Grids of up to 16 patches. Some of them survive, or all with `everything`."""
    side = draw(st.integers(1, 4))
    return GridCase(
        batch=draw(BATCHES),
        grid=side,
        k=side**2 if everything else draw(st.integers(1, side**2)),
        width=draw(WIDTHS),
        kind=draw(st.sampled_from(get_args(GridKind))),
        seed=draw(SEEDS),
    )


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleCase:
    """Any number of stages up to the depth."""
    depth = draw(st.integers(1, 12))
    return ScheduleCase(
        depth=depth, stages=draw(st.integers(1, depth)), keep=draw(KEEPS), tokens=draw(st.integers(1, 400))
    )


@st.composite
def masks(draw: st.DrawFn) -> MaskCase:
    """Masks anywhere in a run."""
    patches = draw(st.sampled_from([2, 4, 9, 16, 49]))
    return MaskCase(
        step=draw(st.integers(0, 10**6)),
        first=draw(st.integers(0, 5000)),
        count=draw(st.integers(1, 6)),
        patches=patches,
        visible=draw(st.integers(1, patches - 1)),
        seed=draw(SEEDS),
    )


def images() -> st.SearchStrategy[ImagesCase]:
    """Square images of one to four channels."""
    return st.builds(
        ImagesCase,
        batch=BATCHES,
        chans=st.integers(1, 4),
        grid=st.integers(1, 4),
        patch=st.integers(1, 4),
        seed=SEEDS,
    )


@st.composite
def _model_values(draw: st.DrawFn, max_depth: int) -> dict[str, Any]:
    depth = draw(st.integers(1, max_depth))
    return {
        "batch": draw(BATCHES),
        "grid": draw(st.sampled_from([2, 3, 4])),
        "patch": draw(st.sampled_from([1, 2])),
        "chans": draw(st.sampled_from([1, 3, 4])),
        "width": draw(st.sampled_from([8, 16])),
        "heads": draw(st.sampled_from([1, 2, 4])),
        "depth": depth,
        "decoder_width": draw(st.sampled_from([8, 12])),
        "decoder_heads": draw(st.sampled_from([1, 2])),
        "decoder_depth": draw(st.sampled_from([1, 2])),
        "classes": draw(st.sampled_from([0, 3])),
        "pooling": draw(st.sampled_from(["cls", "mean"])),
        "stages": draw(st.integers(1, depth)),
        "keep": draw(st.sampled_from([0.5, 0.7, 0.3, 0.9, 1.0])),
        "mask_ratio": draw(st.sampled_from([0.5, 0.75, 0.25])),
        "center": draw(CENTERS),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-2, 1e-12])),
        "activation": draw(ACTIVATIONS),
        "pre_norm": draw(st.booleans()),
        "patch_bias": draw(st.booleans()),
        "seed": draw(SEEDS),
    }


def models(ties: bool = True) -> st.SearchStrategy[ModelCase]:
    """Small models: any depth up to five, any number of stages, several channels. Without `ties`, none always ties."""
    values = st.tuples(_model_values(5), st.booleans())
    cases = values.map(lambda drawn: ModelCase(**drawn[0], blank=drawn[1]))
    return cases if ties else cases.filter(lambda case: not case.always_ties)


@st.composite
def _runs(draw: st.DrawFn, steps: int, max_depth: int, heads: bool) -> TrainCase:
    values = draw(_model_values(max_depth))
    return TrainCase(
        **(values if heads else values | {"classes": 0}),
        steps=steps,
        accumulation=values["batch"] if draw(st.booleans()) else 1,
        clip=draw(st.sampled_from([0.0, 0.05])),
        weight_decay=draw(st.sampled_from([0.05, 0.0, 0.5])),
        learning_rate=draw(st.sampled_from([1e-3, 1e-2])),
        momentum=draw(st.sampled_from([0.9, 0.0, 0.996, 1.0])),
        drop_path=draw(st.sampled_from([0.0, 0.5])),
        pixels=draw(st.booleans()),
        own_mean=draw(st.booleans()),
        beta1=draw(st.sampled_from([0.9, 0.8])),
        beta2=draw(st.sampled_from([0.95, 0.999])),
        start_step=draw(st.sampled_from([3, 0, 100])),
    )


def runs(steps: int = 1, max_depth: int = 3, heads: bool = False) -> st.SearchStrategy[TrainCase]:
    """Training runs of `steps` steps, of models with up to `max_depth` blocks, some with a label head if `heads`."""
    return _runs(steps, max_depth, heads).filter(lambda case: not case.always_ties)


@st.composite
def _finetunings(draw: st.DrawFn, drop_path: bool) -> FinetuneCase:
    values = draw(_model_values(3)) | {"classes": draw(st.sampled_from([2, 3, 5]))}
    return FinetuneCase(
        **(values | {"keep": draw(st.sampled_from([0.5, 0.7, 0.9, 1.0]))}),
        accumulation=values["batch"] if draw(st.booleans()) else 1,
        clip=draw(st.sampled_from([0.0, 0.05])),
        weight_decay=draw(st.sampled_from([0.05, 0.0, 0.5])),
        learning_rate=draw(st.sampled_from([1e-3, 1e-2])),
        momentum=draw(st.sampled_from([0.9, 0.0, 0.996])),
        drop_path=draw(st.sampled_from([0.0, 0.5])) if drop_path else 0.0,
        pixels=draw(st.booleans()),
        own_mean=draw(st.booleans()),
        beta1=draw(st.sampled_from([0.9, 0.8])),
        beta2=draw(st.sampled_from([0.95, 0.999])),
        start_step=draw(st.sampled_from([3, 0, 100])),
        layer_decay=draw(st.sampled_from([0.75, 1.0, 0.5])),
        ema=draw(st.booleans()),
    )


def finetunings(drop_path: bool = True) -> st.SearchStrategy[FinetuneCase]:
    """Fine-tuning steps of classifiers with up to three blocks and either pooling, some with drop path."""
    return _finetunings(drop_path).filter(lambda case: not case.always_ties)
