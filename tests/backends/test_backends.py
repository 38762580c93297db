"""The reference and the torch backend against the recorded cases, central differences and each other."""

from __future__ import annotations

import sysconfig
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import golden_cases
import numpy as np
import pytest
import torch
from crossing import assert_same_states

from pcae_conformance import golden
from pcae_core import (
    Backend,
    BackendError,
    FinetuneConfig,
    ModelConfig,
    PretrainConfig,
    ReductionConfig,
    TrainingError,
    parameters,
    randomness,
    registry,
    schedule,
)
from pcae_torch import compiler, ops
from pcae_torch.backend import resolve_device
from pcae_torch.pretraining import TorchPretrainer

# No stage starts from two tokens: both are equally similar to their mean, and rounding would choose.
TINY = ModelConfig(
    image_size=15, patch_size=3, in_chans=2, embed_dim=16, depth=3, num_heads=4,
    decoder_embed_dim=8, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.6,
)  # fmt: skip


@pytest.fixture(scope="module", params=["numpy", "torch"])
def backend(request) -> Backend:
    return registry.create(request.param)


@pytest.fixture(scope="module", params=golden.NAMES)
def recorded(request) -> golden.GoldenCase:
    return golden.load(request.param)


def test_forward_equals_recorded_case(backend, recorded):
    golden_cases.assert_forward_equals(backend, recorded)


def test_gradients_equal_recorded_case(backend, recorded):
    golden_cases.assert_gradients_equal(backend, recorded)


def test_ema_equals_recorded_case(backend, recorded):
    averages = recorded.group("ema")
    teacher = {name: recorded.group("teacher")[name] for name in averages}
    updated = backend.ema_update(teacher, recorded.group("student"), recorded.momentum)
    for name, expected in averages.items():
        np.testing.assert_allclose(backend.to_numpy(updated[name]), expected, rtol=0, atol=1e-14)


def _inputs(config: ModelConfig, batch: int = 3):
    rng = np.random.default_rng(1)
    student = {
        k: v + 0.02 * rng.normal(size=v.shape) for k, v in parameters.initial_parameters(config, 7, "float64").items()
    }
    teacher = {k: student[k] + 0.02 * rng.normal(size=student[k].shape) for k in parameters.encoder_shapes(config)}
    images = rng.normal(size=(batch, config.in_chans, config.image_size, config.image_size))
    noise = randomness.mask_noise(0, 0, 0, batch, config.num_patches)
    drop_path = randomness.drop_path_scales(0, 0, 0, batch, schedule.drop_path_rates(0.5, config.depth))
    return student, teacher, images, noise, np.float64(drop_path)


def test_gradients_equal_central_differences(backend):
    """Along random directions, drop path included."""
    student, teacher, images, noise, drop_path = _inputs(TINY)
    _, gradients = backend.pretraining_loss_and_gradients(TINY, student, teacher, images, noise, drop_path)
    rng, eps = np.random.default_rng(3), 1e-6

    def loss(name, shift):
        moved = student | {name: student[name] + shift}
        return float(backend.pretraining_loss_and_gradients(TINY, moved, teacher, images, noise, drop_path)[0])

    for name in gradients:
        direction = rng.normal(size=student[name].shape)
        difference = loss(name, eps * direction) - loss(name, -eps * direction)
        slope = float((backend.to_numpy(gradients[name]) * direction).sum())
        assert abs(difference / (2 * eps) - slope) < 1e-7 * max(1.0, abs(slope)), name


@pytest.mark.parametrize("name", ["numpy", "torch", "onnx"])
def test_images_of_another_size_are_refused(name):
    golden_cases.assert_images_are_checked(registry.create(name))


@pytest.mark.parametrize("name", ["numpy", "torch", "onnx"])
def test_threads_do_not_disturb_each_other(name):
    images = np.float32(_inputs(TINY)[2])
    encoders = [parameters.initial_parameters(TINY, seed) for seed in range(2)]

    def encode(encoder) -> np.ndarray:
        own = registry.create(name)
        return own.to_numpy(own.encode(TINY, encoder, images, 0.7).last_hidden_state)

    alone = [encode(encoder) for encoder in encoders]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(encode, encoders * 30))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[i % 2])


@pytest.mark.parametrize("keep", [1.0, 0.7, 0.5])
def test_torch_encoder_equals_reference(keep):
    config = TINY.model_copy(update={"num_classes": 5})
    encoder = _inputs(config)[1] | {"head.weight": np.ones((5, 16)), "head.bias": np.arange(5.0)}
    images = _inputs(config)[2]
    reference, other = (registry.create(name).encode(config, encoder, images, keep) for name in ("numpy", "torch"))
    np.testing.assert_array_equal(other.kept_ids, reference.kept_ids)
    np.testing.assert_allclose(other.last_hidden_state, reference.last_hidden_state, atol=1e-12)
    np.testing.assert_allclose(other.logits, reference.logits, atol=1e-12)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_prefix_tokens_are_counted_as_the_model_says(pooling, monkeypatch):
    """With two, the class token stands at both places: no backend may count on one."""
    monkeypatch.setattr(ModelConfig, "num_prefix_tokens", property(lambda self: 2))
    # A model that no other test has, since backends remember the last ones
    config = TINY.model_copy(update={"num_classes": 5, "pooling": pooling, "mlp_ratio": 2.0})
    student, teacher, images, noise, drop_path = _inputs(config)
    reference, torch_backend, onnx_backend = (
        registry.create(name, device="cpu") for name in ("numpy", "torch", "onnx")
    )
    expected = reference.encode(config, teacher, images, 0.7)
    assert expected.last_hidden_state.shape[1] == 2 + expected.kept_ids.shape[1]
    narrow = {name: np.float32(value) for name, value in teacher.items()}
    for own, weights, atol in ((torch_backend, teacher, 1e-12), (onnx_backend, narrow, 1e-5)):
        found = own.encode(config, weights, images, 0.7)
        np.testing.assert_array_equal(own.to_numpy(found.kept_ids), expected.kept_ids)
        for name in ("last_hidden_state", "logits"):
            np.testing.assert_allclose(own.to_numpy(getattr(found, name)), getattr(expected, name), atol=atol)
    for call, given in (
        ("pretraining_loss_and_gradients", (student, teacher, images, noise, drop_path)),
        ("finetuning_loss_and_gradients", (teacher, images, np.eye(5)[:3], 0.7, drop_path)),
    ):
        (_, gradients), (_, found) = (getattr(own, call)(config, *given) for own in (reference, torch_backend))
        for name, gradient in gradients.items():
            np.testing.assert_allclose(torch_backend.to_numpy(found[name]), gradient, atol=1e-12, err_msg=name)


def test_the_reference_is_not_in_memory_twice():
    """It makes parameters float64 one at a time, so that a large model can be verified."""
    config = ModelConfig(
        image_size=8, patch_size=4, embed_dim=256, depth=6, num_heads=4, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2,
    )  # fmt: skip
    encoder = {name: np.zeros(shape, np.float32) for name, shape in parameters.encoder_shapes(config).items()}
    size = sum(value.nbytes for value in encoder.values())
    images, backend = np.ones((1, 3, 8, 8), np.float32), registry.create("numpy")
    tracemalloc.start()
    backend.encode_stages(config, encoder, images, 0.7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 2


def _train(backend: str, steps: int = 5, state=None, start: int = 0, model: ModelConfig = TINY, **settings):
    config = PretrainConfig(model=model, batch_size=4, **settings)
    pretrainer = registry.create(backend).create_pretrainer(config, state)
    losses = []
    for step in range(start, start + steps):
        images = np.random.default_rng(step).integers(0, 256, (4, 2, 15, 15), dtype=np.uint8)
        out = pretrainer.step(
            images,
            randomness.mask_noise(0, step, 0, 4, model.num_patches),
            learning_rate=1e-3 * (step + 1),
            momentum=0.9,
            drop_path=randomness.drop_path_scales(0, step, 0, 4, schedule.drop_path_rates(0.3, model.depth)),
        )
        losses.append(float(out.loss))
    return losses, pretrainer.state()


@pytest.mark.parametrize("settings", [{}, {"accumulation": 2, "grad_clip": 0.1}])
def test_torch_trains_like_reference(settings):
    ours_losses, ours = _train("torch", precision="float64", **settings)
    losses, expected = _train("numpy", **settings)
    np.testing.assert_allclose(ours_losses, losses, rtol=1e-10)
    assert ours.step == 5
    assert_same_states(ours, expected, 1e-9)


@pytest.mark.parametrize("kind", ["pretrainer", "finetuner"])
def test_torch_steps_take_tensors(kind):
    """Drop path in bfloat16, which NumPy has not: as on a GPU, a tensor must not become an array on the way."""
    config = PretrainConfig(model=TINY, batch_size=4)
    if kind == "finetuner":
        model = ModelConfig(**TINY.model_dump() | {"num_classes": 3})
        config = FinetuneConfig(model=model, batch_size=4, keep=0.7, rand_augment=None)
    _, _, images, noise, _ = _inputs(TINY, batch=4)
    given = np.eye(4, 3) if kind == "finetuner" else noise
    drop_path = np.random.default_rng(0).choice([0.0, 2.0], (TINY.depth, 2, 4))
    tensors = torch.from_numpy(images), torch.from_numpy(given), torch.from_numpy(drop_path).bfloat16()
    losses = []
    for pixels, second, scales in ((images, given, drop_path), tensors):
        trainer = getattr(registry.create("torch"), f"create_{kind}")(config)
        losses.append(float(trainer.step(pixels, second, learning_rate=1e-3, momentum=0.9, drop_path=scales).loss))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_torch_precision_stays_near_float64(precision):
    """Without token reduction, where a rounded score may choose another token."""
    model = TINY.model_copy(update={"reduction": ReductionConfig(keep=1.0)})
    exact, _ = _train("torch", precision="float64", model=model)
    losses, state = _train("torch", precision=precision, model=model)
    np.testing.assert_allclose(losses, exact, rtol=1e-5 if precision == "float32" else 1e-2)
    assert {value.dtype for value in state.student.values()} == {np.dtype("float32")}
    assert (state.loss_scale is not None) == (precision == "float16")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_torch_continues_bit_for_bit(precision):
    _, whole = _train("torch", steps=6, precision=precision)
    _, half = _train("torch", steps=3, precision=precision)
    _, resumed = _train("torch", steps=3, state=half, start=3, precision=precision)
    assert resumed.loss_scale == whole.loss_scale
    for group in ("student", "teacher", "exp_avg", "exp_avg_sq"):
        for name, value in getattr(whole, group).items():
            np.testing.assert_array_equal(getattr(resumed, group)[name], value, err_msg=f"{group} {name}")


def test_snapshot_is_left_alone_by_later_steps():
    config = PretrainConfig(model=TINY, batch_size=4)
    pretrainer = registry.create("torch").create_pretrainer(config)
    before = pretrainer.state()
    copy = {name: value.copy() for name, value in before.student.items()}
    images = np.zeros((4, 2, 15, 15), np.uint8)
    pretrainer.step(images, randomness.mask_noise(0, 0, 0, 4, TINY.num_patches), learning_rate=0.1, momentum=0.5)
    for name, value in copy.items():
        np.testing.assert_array_equal(before.student[name], value)
    assert not np.array_equal(pretrainer.state().student["norm.weight"], copy["norm.weight"])


def test_torch_norm_of_many_tensors_is_exact():
    values = [
        torch.from_numpy(rng.normal(size=(300, 700)).astype(np.float32)) for rng in map(np.random.default_rng, (0, 1))
    ]
    values[1] = values[1].T[:, ::2]  # gradients may be views
    expected = np.sqrt(sum(np.square(value.numpy().astype(np.float64)).sum() for value in values))
    np.testing.assert_allclose(ops.total_norm(values), expected, rtol=5e-6)
    assert ops.total_norm([*values, torch.tensor([float("nan")])]).isnan()


def test_torch_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    _train("torch", steps=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(compiler.missing() is not None, reason=f"torch.compile needs {compiler.missing()}")
def test_torch_compile_gives_the_same_losses():
    """One block of each kind, since every kernel takes a compiler seconds."""
    reduction = ReductionConfig(num_stages=1, keep=0.5)
    model = TINY.model_copy(update={"depth": 1, "decoder_depth": 1, "reduction": reduction})
    plain, _ = _train("torch", steps=2, model=model)
    compiled, _ = _train("torch", steps=2, model=model, compile=True)
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


@pytest.mark.parametrize("lacking", ["no-such-compiler", "Python.h"])
def test_torch_compile_without_what_it_needs_is_refused(monkeypatch, tmp_path, lacking):
    if lacking == "Python.h":
        (tmp_path / "c++").touch(mode=0o755)
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "c++") if lacking == "Python.h" else lacking)
    with pytest.raises(BackendError, match=rf"torch\.compile needs .*{lacking}.* apt install g\+\+ python3-dev"):
        _train("torch", steps=1, model=TINY, compile=True)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    for name in ("auto", "cuda", "cuda:1"):
        with pytest.raises(BackendError, match="there is no GPU 1 here: PyTorch sees 1"):
            resolve_device(name)


def test_a_full_gpu_is_said_in_one_line(monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    config = PretrainConfig(model=ModelConfig.preset("vit_micro_patch4_28", depth=3), batch_size=2, drop_path=0.0)
    trainer = TorchPretrainer(config, torch.device("cpu"))
    monkeypatch.setattr(trainer, "_accumulate", full)
    images = np.zeros((2, 3, 28, 28), np.float32)
    noise = randomness.mask_noise(0, 0, 0, 2, config.model.num_patches)
    with pytest.raises(TrainingError, match=r"^the GPU's memory is full: raise --accumulation .*2\.00 GiB\.\)$"):
        trainer.step(images, noise, learning_rate=1e-3, momentum=0.9)
