"""The MindSpore backend against recorded cases, the reference and PyTorch; a run that crosses frameworks.

Compiling a training step takes seconds, so that few tests train. Processes are started afresh, never forked: a fork
hangs once MindSpore has run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import golden_cases
import numpy as np
import patience
import pytest
import runs
from crossing import STEPS, arguments, assert_same_end, assert_same_states, back_to, launched, resume, whole_run
from optional import needs_mindspore
from safetensors.numpy import load_file

from pcae_conformance import golden
from pcae_conformance.check import all_checks
from pcae_core import (
    BackendError,
    CheckpointError,
    FinetuneConfig,
    ModelConfig,
    PretrainConfig,
    ReductionConfig,
    randomness,
    registry,
    schedule,
)
from pcae_core.contract import TrainState

pytestmark = needs_mindspore

# Heads of 6 features, since the root of 4 or 16 is exact in every precision.
TINY = ModelConfig(
    image_size=15, patch_size=3, in_chans=2, embed_dim=24, depth=3, num_heads=4,
    decoder_embed_dim=12, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.6,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """MindSpore's threads wait by spinning: on one core they take nothing from the tests beside these."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def backend():
    return registry.create("mindspore")


@pytest.fixture(params=golden.NAMES)
def recorded(request) -> golden.GoldenCase:
    return golden.load(request.param)


def test_forward_equals_recorded_case(backend, recorded):
    golden_cases.assert_forward_equals(backend, recorded)


def test_gradients_equal_recorded_case(backend, recorded):
    golden_cases.assert_gradients_equal(backend, recorded)


def train(backend: str, steps: int, **settings) -> tuple[list[float], TrainState]:
    config = PretrainConfig(model=settings.pop("model", TINY), batch_size=4, **settings)
    pretrainer = registry.create(backend).create_pretrainer(config)
    losses = []
    for step in range(steps):
        out = pretrainer.step(
            np.random.default_rng(step).integers(0, 256, (4, 2, 15, 15), dtype=np.uint8),
            randomness.mask_noise(0, step, 0, 4, TINY.num_patches),
            learning_rate=1e-3 * (step + 1),
            momentum=0.9,
            drop_path=randomness.drop_path_scales(0, step, 0, 4, schedule.drop_path_rates(0.3, TINY.depth)),
        )
        losses.append(float(out.loss))
    return losses, pretrainer.state()


def test_images_of_another_size_are_refused(backend):
    golden_cases.assert_images_are_checked(backend)


def test_trains_like_reference():
    """In float64, with micro-batches, clipping and drop path."""
    settings = {"accumulation": 2, "grad_clip": 0.1}
    ours_losses, ours = train("mindspore", 4, precision="float64", **settings)
    losses, expected = train("numpy", 4, **settings)
    np.testing.assert_allclose(ours_losses, losses, rtol=1e-12)
    assert_same_states(ours, expected, 1e-10)


def test_trains_like_torch_in_float32():
    """Where AdamW is one kernel."""
    ours_losses, ours = train("mindspore", 5)
    losses, expected = train("torch", 5)
    np.testing.assert_allclose(ours_losses, losses, rtol=1e-5)
    assert_same_states(ours, expected, 1e-4)


def tune(backend: str, **settings) -> tuple[list[float], TrainState]:
    """Four steps of fine-tuning that drops 30% of the tokens at each stage."""
    model = ModelConfig(**TINY.model_dump() | {"num_classes": 3, "pooling": settings.pop("pooling", "mean")})
    config = FinetuneConfig(model=model, batch_size=4, keep=0.7, rand_augment=None, **settings)
    finetuner = registry.create(backend).create_finetuner(config)
    losses = []
    for step in range(4):
        rng = np.random.default_rng(step)
        out = finetuner.step(
            rng.integers(0, 256, (4, 2, 15, 15), dtype=np.uint8),
            rng.dirichlet(np.ones(3), 4),
            learning_rate=1e-3 * (step + 1),
            momentum=0.9,
            drop_path=randomness.drop_path_scales(0, step, 0, 4, schedule.drop_path_rates(0.3, model.depth)),
        )
        losses.append(float(out.loss))
    return losses, finetuner.state()


@pytest.mark.parametrize(
    "settings",
    [{"accumulation": 2, "grad_clip": 0.1, "ema_momentum": 0.9}, {"pooling": "cls"}],
    ids=["everything", "plain"],
)
def test_fine_tunes_like_torch(settings):
    ours_losses, ours = tune("mindspore", **settings)
    losses, expected = tune("torch", **settings)
    np.testing.assert_allclose(ours_losses, losses, rtol=1e-5)
    assert bool(ours.teacher) == ("ema_momentum" in settings)
    assert_same_states(ours, expected, 1e-4)


def test_float16_keeps_parameters_in_float32_and_scales_the_loss():
    """Without token reduction, where a rounded score may choose another token."""
    model = TINY.model_copy(update={"reduction": ReductionConfig(keep=1.0)})
    ours_losses, ours = train("mindspore", 3, precision="float16", model=model)
    losses, expected = train("torch", 3, precision="float16", model=model)
    np.testing.assert_allclose(ours_losses, losses, rtol=1e-2)
    assert {value.dtype for value in ours.student.values()} == {np.dtype("float32")}
    assert ours.loss_scale == expected.loss_scale


def test_requests_that_cannot_be_met_say_so(backend):
    with pytest.raises(BackendError, match="no bfloat16 kernels on cpu; set precision to float64 or float32"):
        backend.create_pretrainer(PretrainConfig(model=TINY, precision="bfloat16"))
    with pytest.raises(BackendError, match="no Ascend is available to MindSpore here; use device 'cpu'"):
        registry.create("mindspore", device="ascend")
    with pytest.raises(BackendError, match="ascend, gpu, cpu, not 'tpu'; choose one with --device, or --device auto"):
        registry.create("mindspore", device="tpu")


def test_the_backend_follows_what_mindspore_has_computed_already():
    """In a process of its own: there MindSpore starts on its device without being told which."""
    script = (
        "import numpy, mindspore; from pcae_core import registry\n"
        "ones = mindspore.Tensor(numpy.ones((2, 2), numpy.float32)); (ones @ ones).asnumpy()\n"
        "backend = registry.create('mindspore', device='cpu'); print(backend.device, backend.asarray([1.0]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=patience.SECONDS)
    assert done.stdout.split("\n")[0] == "cpu (1,)", done.stderr


def test_numpy_2_is_refused_with_the_pin(monkeypatch):
    monkeypatch.setattr(np, "__version__", "2.3.1")
    with pytest.raises(BackendError, match=r'NumPy 2\.3\.1.*pip install "numpy<2"') as caught:
        registry.create("mindspore")
    assert "\n" not in str(caught.value)


BROKEN_GRAPH = """
from pcae_core import registry
registry.create("mindspore")
import mindspore
@mindspore.jit
def broken(x):
    return x.no_such_method()
try:
    broken(mindspore.Tensor([1.0]))
except AttributeError:
    print("refused")
"""


def test_a_graph_that_does_not_compile_leaves_nothing_in_the_working_directory(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN_GRAPH)
    # This process set that variable when it created the backend.
    environment = {name: value for name, value in runs.environment().items() if name != "MS_OM_PATH"}
    command = [sys.executable, script.name]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=patience.SECONDS, cwd=tmp_path
    )
    assert "refused" in done.stdout
    assert list(tmp_path.iterdir()) == [script]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return whole_run(tmp_path_factory.mktemp("mindspore"))


def test_weights_are_written_as_mindspore_reads_them(whole, tmp_path):
    out = tmp_path / "weights.ckpt"
    done = runs.pcae("convert", whole, out, "--encoder", "teacher")
    assert done.returncode == 0, done.stderr
    import mindspore

    stored = load_file(whole / "checkpoints" / f"step_{STEPS:08d}" / "teacher.safetensors")
    written = mindspore.load_checkpoint(str(out))
    assert written.keys() == stored.keys()
    for name, value in stored.items():
        np.testing.assert_array_equal(written[name].asnumpy(), value, err_msg=name)


@pytest.fixture
def stored(tmp_path) -> Path:
    """MindSpore's own file of several types, with text and a checksum."""
    import mindspore

    rng, path = np.random.default_rng(0), tmp_path / "weights.ckpt"
    kinds = ("float32", "float16", "bfloat16", "float64", "int64", "bool_")
    values = {f"a.{kind}": mindspore.Tensor(rng.normal(size=(3, 4)), getattr(mindspore, kind)) for kind in kinds}
    values["a.scalar"] = mindspore.Tensor(2.5, mindspore.float32)
    listed = [{"name": name, "data": value} for name, value in values.items()]
    mindspore.save_checkpoint(listed, str(path), append_dict={"epoch": "three"}, crc_check=True)
    path.chmod(0o644)
    return path


def test_weights_are_read_as_mindspore_reads_them(backend, stored):
    import mindspore

    expected = mindspore.load_checkpoint(str(stored))
    assert expected.pop("epoch") == "three"
    read = backend.load_weights(stored)
    assert read.keys() == expected.keys()
    for name, parameter in expected.items():
        half = name in ("a.float16", "a.bfloat16")
        value = (parameter.astype(mindspore.float32) if half else parameter).asnumpy()
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value, err_msg=name)


def test_weights_that_are_in_several_parts_or_no_tensors(backend, stored):
    from mindspore.train.checkpoint_pb2 import Checkpoint

    message = Checkpoint.FromString(stored.read_bytes()[:-17])
    whole = backend.load_weights(stored)
    first = message.value[0].tensor
    content, first.tensor_content = first.tensor_content, first.tensor_content[:20]
    assert "has 20 bytes, which are no Float32 of shape (3, 4)" in refused(backend, stored, message)
    rest = Checkpoint.Value(tag=message.value[0].tag, tensor=first)
    rest.tensor.tensor_content = content[20:]
    message.value.insert(1, rest)
    stored.write_bytes(message.SerializeToString())
    np.testing.assert_array_equal(backend.load_weights(stored)["a.float32"], whole["a.float32"])
    first.dims[:] = [3, 5]
    assert "which are no Float32 of shape" in refused(backend, stored, message)
    first.tensor_type = "Complex64"
    assert "a.float32 is no tensor of numbers, but Complex64" in refused(backend, stored, message)


def refused(backend, path: Path, message) -> str:
    path.write_bytes(message.SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        backend.load_weights(path)
    return str(caught.value)


def test_conforms():
    """Operator by operator; the tests above and below train with compiled steps."""
    done = runs.pcae("conformance", "mindspore", "--max-examples", 2)
    assert done.returncode == 0, done.stdout
    assert f"mindspore conforms: {len(all_checks())} passed" in done.stdout


def test_compiled_steps_conform():
    chosen = ("--compiled", "--only", "train-step", "--dtype", "float32", "--max-examples", 1)
    done = runs.pcae("conformance", "mindspore", *chosen)
    assert done.returncode == 0, done.stdout


def test_a_run_crosses_to_mindspore_and_back(whole, tmp_path):
    """Steps 1 to 3 in two processes of PyTorch, 4 to 6 in MindSpore, the rest in PyTorch; nothing is left around."""
    run, working = tmp_path / "run", tmp_path / "working"
    working.mkdir()
    launched(runs.torchrun(*arguments(whole, run)), working)
    back_to(run, 3)
    resume(run, "mindspore", working)
    back_to(run, 6)
    resume(run, "torch", working)
    assert_same_end(run, whole)
    assert list(working.iterdir()) == []
