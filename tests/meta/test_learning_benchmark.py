"""What the learning benchmark defines itself: MAE's training, other selections, the table in the documentation."""

from __future__ import annotations

import argparse
import json
import math
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.learning import sets
from benchmarks.learning.methods import (
    METHODS,
    PATCHES,
    RandomScore,
    create_blind,
    create_early_pixels,
    create_mae,
    create_pcae,
    opposite_score,
)
from benchmarks.learning.plan import ABLATIONS, FINER, RATES, Experiment, cost, merged, trial
from benchmarks.learning.results import Results
from benchmarks.learning.table import against_mae, document, tables
from benchmarks.learning.training import configure, open_loader

from pcae_core import DataConfig, FinetuneConfig, ModelConfig, PretrainConfig, ReductionConfig, randomness
from pcae_core.data import open_source
from pcae_core.data.transforms import training_pipeline
from pcae_torch import model, ops

ROOT = Path(__file__).parents[2]
SMALL = {"embed_dim": 16, "depth": 3, "num_heads": 2, "decoder_embed_dim": 12, "decoder_depth": 2}
CONFIG = ModelConfig(image_size=20, patch_size=4, decoder_num_heads=2, mask_ratio=0.6, **SMALL)
NOISE = randomness.mask_noise(3, 0, 0, 5, CONFIG.num_patches)
IMAGES = np.random.default_rng(1).normal(size=(5, 3, 20, 20)).astype(np.float32)


def split() -> tuple[torch.Tensor, torch.Tensor]:
    return ops.split_by_noise(torch.from_numpy(NOISE), CONFIG.num_visible)


def test_mae_learns_what_it_is_asked() -> None:
    config = PretrainConfig(model=CONFIG, batch_size=5, drop_path=0.0)
    trainer = create_mae(config)
    outs = [trainer.step(IMAGES, NOISE, learning_rate=3e-3, momentum=1.0) for _ in range(60)]
    assert outs[-1].loss < 0.7 * outs[0].loss
    assert outs[-1].target.shape == (5, CONFIG.num_masked, 48)
    assert METHODS["MAE"].constant_loss(outs[-1].target) == pytest.approx(1.0, abs=0.1)
    assert trainer.state().teacher == {}


def test_its_loader_augments_as_the_settings_say(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.random.default_rng(2).integers(0, 256, (8, 30, 30, 3), dtype=np.uint8))
    source = open_source(tmp_path / "d.npz", 3)
    config = FinetuneConfig(model=CONFIG, batch_size=4, random_erasing=1.0, loader=DataConfig(workers=0))
    with open_loader(source, config, 1) as loader:
        batch = next(loader)
    pipeline = training_pipeline(config)
    for image, number in zip(batch.images, batch.sample_ids.tolist(), strict=True):
        rng = randomness.generator(config.seed, randomness.Purpose.AUGMENT, 0, number)
        np.testing.assert_array_equal(image, pipeline(source.load(number), rng))


def test_early_pixels_fade_out() -> None:
    config = PretrainConfig(model=CONFIG, batch_size=5, drop_path=0.0, steps=8)
    extended, plain = create_early_pixels(config), create_pcae(config)
    layers = []
    for step in range(8):
        out = extended.step(IMAGES, NOISE, learning_rate=1e-3, momentum=0.9)
        if step == 0:
            assert out.loss == plain.step(IMAGES, NOISE, learning_rate=1e-3, momentum=0.9).loss
        moments = extended.state().exp_avg["pixel_pred.weight"]
        layers.append(np.abs(moments).mean())
    assert layers[1] > 0
    ratios = np.array(layers[4:]) / np.array(layers[3:7])
    np.testing.assert_allclose(ratios, config.betas[0], rtol=1e-4)  # no gradient in the second half


def test_a_blind_start_sees_differences_and_no_mean() -> None:
    state = create_blind(PretrainConfig(model=CONFIG, batch_size=5, drop_path=0.0)).state()
    plain = create_pcae(PretrainConfig(model=CONFIG, batch_size=5, drop_path=0.0)).state()
    np.testing.assert_allclose(state.student[PATCHES].sum(axis=(2, 3)), 0.0, atol=1e-5)
    difference = np.diff(plain.student[PATCHES], axis=3)
    np.testing.assert_allclose(np.diff(state.student[PATCHES], axis=3), 5 * difference, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state.student[PATCHES], state.teacher[PATCHES])


def targets(score: ops.Score | None = None, config: ModelConfig = CONFIG) -> tuple[torch.Tensor, torch.Tensor]:
    from pcae_core.parameters import encoder_shapes, initial_parameters

    values = initial_parameters(config, 4)
    teacher = model.build(partial(model.Teacher, score=score), config)
    model.load(teacher, {name: torch.from_numpy(values[name]) for name in encoder_shapes(config)})
    with torch.no_grad():
        return teacher(ops.patchify(torch.from_numpy(IMAGES), config.patch_size), split()[1])


def test_a_score_that_is_the_products_gives_its_targets() -> None:
    for own, products in zip(targets(ops.similarity_scores), targets(), strict=True):
        assert torch.equal(own, products)


def test_the_opposite_keeps_what_the_product_drops() -> None:
    once = CONFIG.model_copy(update={"reduction": ReductionConfig(num_stages=1, keep=0.4)})
    (_, kept), (_, opposite) = targets(None, once), targets(opposite_score("unit"), once)
    assert kept.shape == opposite.shape == (5, 6)
    assert not (kept[:, :, None] == opposite[:, None, :]).any()


def test_random_drop_is_random_among_the_masked() -> None:
    _, ids = targets(RandomScore())
    masked = split()[1]
    assert ids.shape == (5, CONFIG.num_targets)
    assert (ids[:, :, None] == masked[:, None, :]).any(dim=2).all()
    assert not torch.equal(ids, targets()[1])
    score = RandomScore()
    chosen = torch.cat([ops.select_tokens(score(torch.zeros(100, 10, 4)), 3) for _ in range(30)])
    share = torch.bincount(chosen.flatten(), minlength=10) / len(chosen)
    assert (share - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / len(chosen))


def test_no_drop_decodes_every_masked_patch() -> None:
    model_config = configure(Experiment("fashion-mnist", "no drop", "test", 60, 0), 100).model
    assert model_config.num_targets == model_config.num_masked == 37
    assert configure(Experiment("fashion-mnist", "PCAE", "test", 60, 0), 100).model.num_targets == 4
    assert METHODS["no drop, PCAE's steps"].clock == "PCAE"


@pytest.mark.parametrize("data", ["fashion-mnist", "cifar10"])
def test_recipes_have_the_settings_that_won(data: str) -> None:
    method = "with small-data settings"
    chosen = Results(ROOT / "benchmarks" / "learning" / "results.jsonl").chosen(data, method)
    won = configure(Experiment(data, method, "test", 60, 0, chosen), 1000)
    recipe = PretrainConfig.from_yaml(ROOT / "examples" / f"{data.replace('-', '_')}.yaml")
    for name in ("model", "batch_size", "base_learning_rate"):
        assert getattr(recipe, name) == getattr(won, name), name


@pytest.mark.parametrize("data", FINER)
def test_finer_grids(data: str) -> None:
    finer, plain = sets.recipe(data), sets.recipe(FINER[data][0])
    assert finer.model.num_patches == 4 * plain.model.num_patches == int(data.rpartition("-")[2])
    assert finer.model_copy(update={"model": plain.model}) == plain
    assert (trial(data, "MAE", {}).budget, trial(FINER[data][0], "MAE", {}).budget) == (180, 60)


@pytest.mark.parametrize(("data", "shape"), [("fashion-mnist", (28, 28)), ("cifar10", (32, 32, 3))])
def test_validation_images_are_the_last_of_the_train_split(tmp_path: Path, monkeypatch, data: str, shape) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "data" / data).mkdir(parents=True)
    for name, labels in (("train", [0, 1, 2, 3, 4]), ("test", [5, 6])):
        images = np.zeros((len(labels), *shape), np.uint8)
        np.savez(tmp_path / "data" / data / f"{name}.npz", images=images, labels=np.array(labels))
    monkeypatch.setattr(sets, "ROOT", tmp_path)
    monkeypatch.setattr(sets, "_VALIDATION", 2)
    chosen, final = (sets.parts.__wrapped__(data, split) for split in ("validation", "test"))
    assert (chosen.train.labels.tolist(), chosen.scored.labels.tolist()) == ([0, 1, 2], [3, 4])
    assert (final.train.labels.tolist(), final.scored.labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6])
    assert [part.labels.tolist() for part in final.watched] == [[0, 1, 2], [3, 4]]
    assert np.asarray(chosen.train.load(0)).shape == shape


def planned(part: str, monkeypatch, **options: Any) -> list[Experiment]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command sets it
    from benchmarks.learning.__main__ import PARTS

    every = {"sets": sets.SETS, "methods": list(METHODS), "ablations": list(ABLATIONS)}
    every |= {"budgets": (60, 180, 600), "seeds": (0, 1, 2)}
    path = ROOT / "benchmarks" / "learning" / "results.jsonl"
    return PARTS[part](argparse.Namespace(**every | options), Results(path))


def test_ablations_are_run_once(monkeypatch) -> None:
    found = planned("ablations", monkeypatch, sets=["fashion-mnist"], seeds=[0, 1], ablations=["start"])
    assert len(found) == len(set(found)) == 2 * 12  # one of the 12 rows is what the trials chose
    assert {run.data for run in planned("ablations", monkeypatch)} == {"fashion-mnist", "emoji"}
    assert {run.budget for run in planned("ablations", monkeypatch, sets=["fashion-mnist"])} == {60, 180}
    assert {run.budget for run in planned("ablations", monkeypatch, budgets=(60,))} == {60}


def test_options_choose_parts_of_the_plan(monkeypatch) -> None:
    found = planned("comparison", monkeypatch, methods=["PCAE", "MAE"], sets=["emoji", "cifar10"], seeds=[1])
    wanted = [("emoji", 60), ("emoji", 180), ("emoji", 600), ("cifar10", 60), ("cifar10", 600)]
    assert [(run.data, run.budget, run.method) for run in found] == [(*w, m) for w in wanted for m in ("PCAE", "MAE")]
    tried = planned("trials", monkeypatch, sets=["cifar10"])
    assert {run.method for run in tried} == {"PCAE", "MAE", "with early pixels (extension)", "with small-data settings"}


def test_a_teachers_memory_is_a_share_of_the_steps() -> None:
    short = Experiment("fashion-mnist", "PCAE", "test", 60, 0, {"memory": 0.05})
    assert configure(short, 1000).ema_momentum == pytest.approx(0.98)
    assert configure(short, 10_000).ema_momentum == pytest.approx(0.998)


def test_what_costs_no_time_is_timed_once() -> None:
    settings = {"memory": 0.1, "model": {"init_residual_scale": 0.3}}
    base = Experiment("emoji", "PCAE", "test", 60, 2, settings)
    assert cost(base) == cost(trial("emoji", "PCAE", RATES[0])) == Experiment("emoji", "PCAE", "validation", 0, 0)
    deeper = Experiment("emoji", "PCAE", "test", 60, 2, merged(settings, {"model": {"decoder_depth": 1}}))
    assert cost(deeper).settings == {"model": {"decoder_depth": 1}}


def test_results_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = Results(path)
    results.add_step(trial("emoji", "MAE", RATES[0]), 0.1, 1.5)
    for score, settings in zip((50, 52, 51), RATES, strict=True):
        results.add_run(trial("emoji", "MAE", settings), {"knn": score, "linear": 50, "rank": 2})
    again = Results(path)
    assert again.runs == results.runs
    assert again.steps(trial("emoji", "MAE", RATES[1])) == 400
    assert again.chosen("emoji", "MAE") == RATES[1]
    with pytest.raises(KeyError):
        again.chosen("emoji", "PCAE")


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ((53.0, 54.0, 55.0), "+3.0*"),
        ((50.0, 47.5, 46.5), "-3.0"),  # one seed is as good
        ((51.5, 52.0, 52.5), "+1.0"),  # no more than the spread
        ((54.0,), "+3.0"),  # nothing is known of the spread
        ((51.0, 51.0, 50.9), "+0.0"),
    ],
)
def test_differences_have_a_star_beyond_the_spread(tmp_path: Path, scores: tuple[float, ...], shown: str) -> None:
    results = Results(tmp_path / "results.jsonl")
    for method, values in (("PCAE", (50.0, 51.0, 52.0)), ("MAE", scores)):
        for seed, score in enumerate(values):
            run = Experiment("emoji", method, "test", 60, seed)
            results.add_run(run, {"knn": score, "linear": 50, "rank": 2, "health": [{"knn": 1, "rank": 1}] * 3})
    rows = [line.split(" | ") for line in tables(results).splitlines()]
    assert [row[-1].removesuffix(" |") for row in rows[2:5]] == ["minus PCAE", "---", ""]
    assert rows[5][-1] == f"{shown}, +0.0 |"


def test_the_tables_in_the_repository_are_made_from_the_results() -> None:
    path = ROOT / "benchmarks" / "learning" / "results.jsonl"
    made = document(Results(path))
    assert made.count("|") > 100
    assert made == (ROOT / "benchmarks" / "learning" / "RESULTS.md").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
    answers = against_mae(Results(path))
    assert answers in guide
    figures = re.findall(r"[+-]\d+\.\d\*?, [+-]\d+\.\d\*?|\b\d\d\.\d\b", " ".join(guide.split()))
    assert len(figures) > 20
    assert [figure for figure in figures if figure not in made + answers] == []
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len({json.dumps(json.loads(line)["experiment"]) for line in lines})
