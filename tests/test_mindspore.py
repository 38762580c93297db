"""The MindSpore backend against recorded cases, the reference and PyTorch; runs that cross frameworks; msrun.

Compiling a training step takes seconds, so that few tests train. Processes are started afresh, never forked: a fork
hangs once MindSpore has run.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import golden_cases
import numpy as np
import pytest
import runs
from safetensors.numpy import load_file

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
from pcae_core.protocol import TrainState

# Heads of 6 features, since the root of 4 or 16 is exact in every precision.
TINY = ModelConfig(
    image_size=15, patch_size=3, in_chans=2, embed_dim=24, depth=3, num_heads=4,
    decoder_embed_dim=12, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.6,
)  # fmt: skip
STEPS = 9


@pytest.fixture(scope="module")
def backend():
    return registry.create("mindspore")


@pytest.fixture(params=golden_cases.NAMES)
def golden(request) -> golden_cases.GoldenCase:
    return golden_cases.load(request.param)


def test_forward_equals_recorded_case(backend, golden):
    golden_cases.assert_forward_equals(backend, golden)


def test_gradients_equal_recorded_case(backend, golden):
    golden_cases.assert_gradients_equal(backend, golden)


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


def without_key_bias(name: str, value: np.ndarray) -> np.ndarray:
    """Softmax makes the gradient of the key bias zero; AdamW turns its rounding noise into motion."""
    if not name.endswith("qkv.bias"):
        return value
    query, _, rest = np.split(value, 3)
    return np.concatenate([query, rest])


def assert_same_states(ours: TrainState, expected: TrainState, tolerance: float) -> None:
    assert ours.step == expected.step
    for group in ("student", "teacher", "exp_avg", "exp_avg_sq"):
        assert getattr(ours, group).keys() == getattr(expected, group).keys()
        for name, value in getattr(expected, group).items():
            pair = (without_key_bias(name, x) for x in (getattr(ours, group)[name], value))
            np.testing.assert_allclose(*pair, rtol=0, atol=tolerance, err_msg=f"{group} {name}")


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
    config = FinetuneConfig(model=model, batch_size=4, drop=0.3, rand_augment=None, **settings)
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
    with pytest.raises(BackendError, match="runs on the devices ascend, gpu, cpu, not 'tpu'"):
        registry.create("mindspore", device="tpu")


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
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, cwd=tmp_path)
    assert "refused" in done.stdout
    assert list(tmp_path.iterdir()) == [script]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("mindspore") / "shapes")


def test_weights_are_written_as_mindspore_reads_them(whole, tmp_path):
    out = tmp_path / "weights.ckpt"
    done = runs.pcae("convert", whole, out, "--weights", "teacher")
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
    first.dims[:] = [2**40, 2**40]
    assert "which are no Float32 of shape" in refused(backend, stored, message)
    first.tensor_type = "Int4"
    assert "a.float32 is no tensor of numbers, but Int4" in refused(backend, stored, message)


def refused(backend, path: Path, message) -> str:
    path.write_bytes(message.SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        backend.load_weights(path)
    return str(caught.value)


def test_conforms():
    """Operator by operator; the tests above and below train with compiled steps."""
    done = runs.pcae("conformance", "mindspore", "--max-examples", 2, timeout=900)
    assert done.returncode == 0, done.stdout
    assert "mindspore conforms: 77 passed" in done.stdout


def test_compiled_steps_conform():
    chosen = ("--compiled", "--only", "train-step", "--dtype", "float32", "--max-examples", 1)
    done = runs.pcae("conformance", "mindspore", *chosen, timeout=600)
    assert done.returncode == 0, done.stdout


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    every = ("--steps", STEPS, "--checkpoint-every", 3, "--model.depth", 8)  # as many parameters as a real model
    return list(map(str, ("pretrain", "--data", data, "--out", out, *runs.SETTINGS, *every, *more)))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run in PyTorch that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = runs.pcae(*arguments(data, out))
    assert done.returncode == 0, done.stderr
    return out


def back_to(run: Path, step: int) -> None:
    """Remove the checkpoints after `step`, as if the run had been stopped there."""
    for path in (run / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in runs.metrics(run)]


def assert_same_end(run: Path, whole: Path) -> None:
    ours, expected = (runs.tensors(path / "checkpoints" / f"step_{STEPS:08d}") for path in (run, whole))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        pair = (without_key_bias(name, x) for x in (ours[name], value))
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(losses(run), losses(whole), rtol=1e-4)


def resume(run: Path, backend: str, working: Path) -> None:
    command = runs.command("pretrain", "--resume", run, "--backend", backend)
    environment = runs.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, cwd=working)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert ("compiling the first step" in done.stdout) == (backend == "mindspore")


PROGRAMS = Path(sys.executable).parent


def start_job(launcher: list[object], command: list[str], working: Path) -> subprocess.Popen[str]:
    """Start `command` as several processes."""
    environment = runs.environment() | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*map(str, launcher), *command], **pipes, env=environment, cwd=working)


def launched(launcher: list[object], command: list[str], working: Path) -> None:
    """Run `command` as several processes to its end."""
    process = start_job(launcher, command, working)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def msrun(logs: Path) -> list[object]:
    """MindSpore's launcher for two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = ("--worker_num=2", "--local_worker_num=2", f"--master_port={port}", "--join=True")
    return [PROGRAMS / "msrun", *workers, f"--log_dir={logs}", "--cluster_time_out=300", PROGRAMS / "pcae"]


def test_a_run_crosses_to_mindspore_and_back(data, whole, tmp_path):
    """Steps 1 to 3 in two processes of PyTorch, 4 to 6 in MindSpore, the rest in PyTorch; nothing is left around."""
    run, working = tmp_path / "run", tmp_path / "working"
    working.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m"]
    launched([*launcher, "pcae_core.cli"], arguments(data, run), working)
    back_to(run, 3)
    resume(run, "mindspore", working)
    back_to(run, 6)
    resume(run, "torch", working)
    assert_same_end(run, whole)
    assert list(working.iterdir()) == []


def test_two_processes_under_msrun_equal_one(data, whole, tmp_path):
    """The same global batch; the one process is PyTorch's, which then does the second half too."""
    launched(msrun(tmp_path / "logs"), arguments(data, tmp_path / "run", "--backend", "mindspore"), tmp_path)
    assert_same_end(tmp_path / "run", whole)
    back_to(tmp_path / "run", 3)
    resume(tmp_path / "run", "torch", tmp_path)
    assert_same_end(tmp_path / "run", whole)
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "run"}


def test_a_rank_that_dies_under_msrun_ends_the_job_and_one_process_goes_on(data, whole, tmp_path):
    """In less than a minute, half of which msrun's scheduler waits, with the rank's number."""
    out = tmp_path / "run"
    process = start_job(msrun(tmp_path / "logs"), arguments(data, out, "--backend", "mindspore"), tmp_path)
    deadline = time.monotonic() + 300
    while len(runs.metrics(out)) < 4:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (second,) = (pid for pid in runs.children(process.pid) if is_rank(1, pid))
    os.kill(second, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Worker process {second} exit with exception. Error code: -9" in output
    assert f"rank 1 is process {second}\n" in output
    assert "Traceback" not in (tmp_path / "logs" / "scheduler.log").read_text()
    assert len(runs.metrics(out)) < STEPS
    resume(out, "torch", tmp_path)
    assert_same_end(out, whole)


def is_rank(number: int, pid: int) -> bool:
    """Not one of msrun's own, which show what the ranks print."""
    started = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return b"MS_NODE_ID=%d" % number in started and b"pretrain" in Path(f"/proc/{pid}/cmdline").read_bytes()
