"""Measurements, probes and evaluation."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import runs
import scipy.stats

from pcae_core import PretrainConfig, registry
from pcae_core.contract import PretrainOutput
from pcae_core.evaluation import probes
from pcae_core.evaluation.evaluate import evaluate
from pcae_core.training import collapse, loggers
from pcae_core.training import monitor as monitors
from pcae_core.training.signals import StopRequest


def test_effective_rank():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(2000, 4)) - 0)[0]
    flat = (basis - basis.mean(0)) @ np.eye(4, 16)
    assert probes.effective_rank(flat) == pytest.approx(4, rel=0.01)
    assert probes.effective_rank(rng.normal(size=(100, 1)) @ rng.normal(size=(1, 16))) == pytest.approx(1)
    assert probes.effective_rank(np.ones((5, 3))) == 1.0
    for shape in ((7, 30), (30, 7)):
        values = rng.normal(size=shape) * np.arange(shape[1])
        shares = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
        expected = np.exp(scipy.stats.entropy(shares))
        assert probes.effective_rank(values) == pytest.approx(expected, rel=1e-12)
    assert probes.effective_rank(rng.normal(size=(5000, 8))) == pytest.approx(8, rel=0.01)
    assert np.isnan(probes.effective_rank(np.full((3, 3), np.nan)))


def test_constant_prediction_loss_is_the_minimum():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(4, 5, 6)) + rng.normal(size=6)
    unit = target.reshape(-1, 6) / np.linalg.norm(target.reshape(-1, 6), axis=1, keepdims=True)
    best = collapse.constant_prediction_loss(target)
    candidates = [unit.mean(0), *rng.normal(size=(200, 6))]
    losses = [1 - (unit @ (c / np.linalg.norm(c))).mean() for c in candidates]
    assert losses[0] == pytest.approx(best)
    assert min(losses) >= best - 1e-12


def test_collapse_is_said():
    rng = np.random.default_rng(0)
    healthy = collapse.collapse_metrics(0.3, rng.normal(size=(64, 6, 16)), rng.normal(size=(64, 16)), 49)
    assert collapse.collapse_warning(healthy) is None
    assert healthy["kept_share"] == pytest.approx(6 / 49)
    same = np.tile(rng.normal(size=16), (64, 6, 1)) + 1e-6 * rng.normal(size=(64, 1, 1)) * rng.normal(size=16)
    collapsed = collapse.collapse_metrics(collapse.constant_prediction_loss(same), same, same.mean(1), 49)
    warning = collapse.collapse_warning(collapsed)
    assert "effective rank of the targets is 1.0" in warning
    assert "of a constant prediction's" in warning
    assert "\n" not in warning


def test_the_monitor_warns_when_collapse_begins_and_averages_between_checkpoints():
    config = PretrainConfig(warmup_share=0.1, log_every=1)
    monitor = collapse.CollapseMonitor(config, 100, np.asarray)
    rng = np.random.default_rng(0)
    healthy = rng.normal(size=(64, 6, 16))
    same = np.tile(rng.normal(size=16), (64, 6, 1)) + 1e-6 * rng.normal(size=(64, 1, 1)) * rng.normal(size=16)

    def measured(step: int, target: np.ndarray) -> monitors.Found:
        loss = 0.5 * collapse.constant_prediction_loss(target)
        return monitor.measure(step, PretrainOutput(loss, 1.0, True, target, target.mean(axis=1)), loss)

    assert measured(10, same).lines == []  # within the warm-up
    assert [len(measured(step, same).lines) for step in (11, 12)] == [1, 0]
    assert measured(13, healthy).lines == []
    assert measured(14, same[:15]).lines == []  # too few images to judge
    found = measured(15, same)
    assert "step 15: this looks like collapse" in found.lines[0]
    assert found.metrics["target_rank"] == pytest.approx(1)
    for _ in range(2):
        assert monitor.checkpoint_metrics(15)["loss_ratio"] == pytest.approx(0.5)
    monitor.checkpoint_written()
    assert monitor.checkpoint_metrics(15) == {}
    measured(16, healthy)
    assert monitor.checkpoint_metrics(16)["loss_ratio"] == pytest.approx(0.5)


def test_knn_and_linear_probe_separate_what_is_separable():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8))
    labels = rng.integers(0, 6, 600)
    features = centres[labels] + 0.2 * rng.normal(size=(600, 8))
    for probe in (probes.knn, probes.linear_probe):
        good = probe(features[:400], labels[:400], features[400:], labels[400:])
        assert good.top1 > 95
        assert good.top5 >= good.top1
        chance = probe(features[:400], rng.permutation(labels[:400]), features[400:], labels[400:])
        assert chance.top1 < 40


def test_knn_equals_a_plain_statement():
    rng = np.random.default_rng(1)
    train, test = rng.normal(size=(60, 5)), rng.normal(size=(9, 5))
    train_labels, labels = rng.integers(0, 3, 60), rng.integers(0, 3, 9)
    hits = 0
    for row, label in zip(test, labels, strict=True):
        cosine = [row @ t / np.linalg.norm(row) / np.linalg.norm(t) for t in train]
        votes = np.zeros(3)
        for i in sorted(range(60), key=lambda i: -cosine[i])[:20]:
            votes[train_labels[i]] += np.exp(cosine[i] / 0.07)
        hits += votes.argmax() == label
    assert probes.knn(train, train_labels, test, labels).top1 == pytest.approx(100 * hits / 9)


def test_metrics_of_steps_to_be_done_again_and_damaged_ones_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    damaged = b'{"loss": 1}\n{"step": "1"}\n\xff\xfe\n\0\0\0\n[1]}\n'
    path.write_bytes(b'{"step": 1}\n' + damaged + b'{"step": 2}\n{"step": 3}\n{"step": 4, "lo')
    logger = loggers.JsonlLogger(path, start_step=2)
    logger.write(3, {"loss": 0.5})
    logger.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5},
    ]  # fmt: skip


@pytest.fixture
def interrupts():
    """SIGINT interrupts, as at a terminal; a shell's job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_first_signal_asks_and_second_acts():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_evaluation_is_the_same_on_every_backend(tmp_path):
    data = runs.write_data(tmp_path / "shapes")
    done = runs.pcae("pretrain", "--data", data, "--out", tmp_path / "run", *runs.SETTINGS, "--steps", 20)
    assert done.returncode == 0, done.stderr
    reference, ours = (evaluate(registry.create(name), tmp_path / "run", data)[0] for name in ("numpy", "torch"))
    for name in ("student", "teacher", "random"):
        assert ours[name].effective_rank == pytest.approx(reference[name].effective_rank, rel=1e-3)
        assert ours[name].knn.top1 == pytest.approx(reference[name].knn.top1, abs=3.2)  # one image of 32
    assert ours["student"].effective_rank != pytest.approx(ours["random"].effective_rank, rel=1e-3)
