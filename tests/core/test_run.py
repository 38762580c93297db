"""A run is one thing: which checkpoint is meant, what its files say, each read once, and who may train in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from pcae_core import CheckpointError, ConfigError, FinetuneConfig, ModelConfig, PretrainConfig, TrainState, parameters
from pcae_core.storage import checkpoint, manifest
from pcae_core.storage.checkpoint import DataPosition
from pcae_core.storage.run import Run

MODEL = ModelConfig(
    image_size=8, patch_size=2, embed_dim=8, depth=2, num_heads=2, in_chans=1, mask_ratio=0.5,
    decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2, reduction={"num_stages": 2},
)  # fmt: skip
TUNED = MODEL.model_copy(update={"num_classes": 3})


def config_of(kind: str, out: Path) -> PretrainConfig | FinetuneConfig:
    if kind == "pretrain":
        return PretrainConfig(model=MODEL, out=out)
    return FinetuneConfig(model=TUNED, out=out, pretrained=Path("x"), ema_momentum=None)


def state(config: PretrainConfig | FinetuneConfig, step: int) -> TrainState:
    if isinstance(config, FinetuneConfig):
        student = parameters.initial_parameters(TUNED, 0)
        student = {name: student[name] for name in parameters.encoder_shapes(TUNED)}
        teacher, trained = {}, parameters.finetuned_shapes(TUNED)
    else:
        student = parameters.initial_parameters(MODEL, 0)
        teacher = {name: student[name] for name in parameters.encoder_shapes(MODEL)}
        trained = {name: value.shape for name, value in student.items() if parameters.is_trainable(name)}
    moments = {name: np.zeros(shape, np.float32) for name, shape in trained.items()}
    return TrainState(student, teacher, moments, moments, step, None)


def trained(kind: str, out: Path, metrics: dict[int, dict[str, float]]) -> Run:
    """A run with a checkpoint for each of the steps."""
    run, config = Run(out), config_of(kind, out)
    with run.training(config):
        for step, measured in metrics.items():
            data = DataPosition(fingerprint="abc", num_samples=10, samples_seen=step)
            run.save(state(config, step), config, data, measured, {})
    return run


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Manifests that were read, and files that were loaded."""
    found: list[Path] = []

    def noted(function):
        def read(path, *arguments):
            found.append(path)
            return function(path, *arguments)

        return read

    monkeypatch.setattr(checkpoint, "read_json", noted(manifest.read_json))
    monkeypatch.setattr(manifest, "load_safetensors", noted(manifest.load_safetensors))
    return found


@pytest.mark.parametrize(
    ("kind", "metrics", "best", "default"),
    [
        ("pretrain", {1: {"loss_ratio": 0.5}, 2: {"loss_ratio": 0.4}, 3: {"loss_ratio": 0.6}}, 2, 3),
        ("finetune", {1: {"top1": 50.0}, 2: {"top1": 70.0}, 3: {"top1": 60.0}}, 2, 2),
        ("finetune", {1: {}, 2: {}}, 2, 2),
    ],
)
def test_the_checkpoint_that_is_meant(kind, metrics, best, default, tmp_path):
    run = Run.open(trained(kind, tmp_path / "run", metrics).path)
    assert run.kind == kind
    assert run.manifest.config == config_of(kind, tmp_path / "run")
    steps = {name: run.manifest_of(getattr(run, name)).step for name in ("newest", "best", "default")}
    assert steps == {"newest": max(metrics), "best": best, "default": default}
    first = Run.open(run.checkpoints[0])
    assert {first.newest, first.best, first.default, *first.checkpoints} == {run.checkpoints[0]}
    assert Run.open(first) is first


def test_last_three_and_best_are_kept(tmp_path):
    ratios = enumerate([0.9, 0.2, 0.5, 0.4, 0.6, 0.3])
    run = trained("pretrain", tmp_path / "run", {step: {"loss_ratio": ratio} for step, ratio in ratios})
    assert [int(path.name[-8:]) for path in run.checkpoints] == [1, 3, 4, 5]
    assert run.best.name == "step_00000001"


def test_each_file_is_read_once_and_the_state_when_it_is_asked_for(tmp_path, reads):
    out = trained("finetune", tmp_path / "run", {1: {"top1": 50.0}, 2: {"top1": 40.0}}).path
    reads.clear()
    run = Run.open(out)
    assert not reads
    assert (run.kind, run.manifest.config.model, run.manifest.step) == ("finetune", TUNED, 2)
    assert [path.name for path in reads] == ["manifest.json"]
    loaded = run.load(run.default)
    assert loaded.state.step == 1
    manifests = [path for path in reads if path.name == "manifest.json"]
    assert len(manifests) == len(set(manifests)) == 2
    assert len(reads) == 2 + len(checkpoint.FILES)
    settings = run.settings
    (out / "config.yaml").unlink()
    assert run.settings is settings
    assert run.model == TUNED
    one = run.only(run.checkpoints[1])
    assert (one.newest, one.manifest.step) == (run.checkpoints[1], 2)
    assert len(reads) == 2 + len(checkpoint.FILES)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Run.open(tmp_path)
    assert Run(tmp_path).checkpoints == []
    for name in ("newest", "best", "default", "manifest"):
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            getattr(Run(tmp_path), name)
    with pytest.raises(CheckpointError, match=r"holds no config\.yaml"):
        _ = Run(tmp_path).settings


def test_a_run_goes_on_with_its_own_settings(tmp_path):
    run = trained("pretrain", tmp_path / "run", {1: {}})
    moved = Run.open(shutil.move(run.path, tmp_path / "moved"))
    assert moved.continued(PretrainConfig) == PretrainConfig(model=MODEL, out=tmp_path / "moved")
    with pytest.raises(CheckpointError, match="is a run of pcae pretrain, not of pcae finetune"):
        moved.continued(FinetuneConfig)
    with pytest.raises(CheckpointError, match=r"holds no config\.yaml"):
        Run.open(moved.newest).continued(PretrainConfig)


def test_a_page_may_be_about_settings_of_another_version(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": MODEL.to_dict(), "data": "x", "colour": "red"}))
    run = Run(tmp_path)
    assert (run.model, run.data, run.settings["colour"]) == (MODEL, Path("x"), "red")
    with pytest.raises(ConfigError, match="colour"):
        PretrainConfig.from_dict(run.settings)


def test_one_process_trains_in_a_folder(tmp_path):
    config = config_of("pretrain", tmp_path / "run")
    with Run(config.out).training(config):
        with pytest.raises(ConfigError, match="another process trains in"), Run(config.out).training(config):
            pass
        assert PretrainConfig.from_yaml(config.out / "config.yaml") == config
    with Run(config.out).training(config):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write the run's folder"), Run(tmp_path / "file").training(config):
        pass
