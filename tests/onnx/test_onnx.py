"""Running exported models: the session, predictions, Triton, and the onnx backend."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_models import CLASSES, CONFIG, HEADLESS, exported, pixels, weights
from PIL import Image

from pcae.cli import main as cli
from pcae_conformance import runner
from pcae_core import registry
from pcae_core.data import images, normalize
from pcae_core.data.transforms import resize_center_crop
from pcae_core.errors import BackendError, ConfigError, DataError, ModelFileError
from pcae_onnx import runtime, triton
from pcae_onnx import session as session_module
from pcae_onnx.session import InferenceSession


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx") / "dynamic", keep=None, class_names=CLASSES).path


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("onnx") / "fixed", HEADLESS, keep=0.7).path


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "picture.png"
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_attributes(dynamic, fixed):
    session = InferenceSession(dynamic)
    assert (session.name, session.task, session.image_size, session.in_chans) == (
        "dynamic",
        "image-classification",
        24,
        3,
    )
    assert session.dynamic_keep
    assert session.class_names == CLASSES
    assert json.loads(session.metadata["pcae.preprocessing"])["interpolation"] == "bicubic"
    other = InferenceSession(fixed.parent)
    assert not other.dynamic_keep
    assert other.class_names is None
    assert other.task == "feature-extraction"


def test_pixels_that_do_not_fit_are_refused(dynamic):
    session = InferenceSession(dynamic)
    for wrong, message in (
        (pixels(1)[0], "must have the shape"),
        (pixels(1)[:, :2], "must have the shape"),
        (pixels(1)[:0], "empty batch"),
        (np.zeros((1, 3, 24, 24), np.uint8), "must be floating"),
    ):
        with pytest.raises(DataError, match=message):
            session.run(wrong)
    assert session.run(pixels(1).astype(np.float64)).logits.dtype == np.float32


def test_ratios_that_do_not_fit_are_refused(dynamic, fixed):
    for keep in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(ConfigError, match="keep must be in"):
            InferenceSession(dynamic).run(pixels(1), keep)
    with pytest.raises(ConfigError, match=r"fixed at 0\.7; export with --dynamic-keep"):
        InferenceSession(fixed).run(pixels(1, HEADLESS), 0.7)


def test_preprocessing_is_that_of_evaluation(dynamic, picture):
    image = Image.open(picture)
    expected = normalize(resize_center_crop(image, 24)[None], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    session = InferenceSession(dynamic)
    np.testing.assert_array_equal(session.preprocess([image]), expected)
    assert session.preprocess([image.convert("L"), image.convert("RGBA")]).shape == (2, 3, 24, 24)
    with pytest.raises(DataError, match="no picture"):
        session.preprocess([])


def test_a_picture_is_turned_upright(dynamic, picture, tmp_path):
    image = Image.open(picture).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    image.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    session = InferenceSession(dynamic)
    turned, read = Image.open(tmp_path / "turned.png"), images.read(tmp_path / "turned.png", "turned", 3)
    for found in (turned, read):
        np.testing.assert_array_equal(session.preprocess([found]), session.preprocess([image]))


def test_predictions_do_not_depend_on_the_batch(dynamic, picture):
    session = InferenceSession(dynamic)
    images = [Image.open(picture).rotate(angle) for angle in range(5)]
    whole, parts = session.predict(images, 0.7), session.predict(images, 0.7, batch_size=2, topk=2)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.kept_ids, other.kept_ids)
        assert [score.index for score in one.classes[:2]] == [score.index for score in other.classes]
        assert sum(score.probability for score in one.classes) == pytest.approx(1.0)
        assert one.classes[0].name == CLASSES[one.classes[0].index]
    with pytest.raises(ConfigError, match="at least 1"):
        session.predict(images, topk=0)


def test_parts_of_a_large_batch_give_the_whole(dynamic, monkeypatch):
    whole = InferenceSession(dynamic).run(pixels(5), 0.7)
    monkeypatch.setattr(session_module, "_CACHE_BYTES", 2 * 37 * 128 * 4)
    parts = InferenceSession(dynamic).run(pixels(5), 0.7)
    np.testing.assert_array_equal(parts.kept_ids, whole.kept_ids)
    np.testing.assert_allclose(parts.last_hidden_state, whole.last_hidden_state, atol=1e-5)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)


def test_provider_is_never_replaced_in_silence(dynamic, monkeypatch):
    with pytest.raises(BackendError, match="unknown provider 'gpu'; known: cpu, cuda"):
        InferenceSession(dynamic, provider="gpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="'cuda' is not available"):
        InferenceSession(dynamic, provider="cuda")
    # onnxruntime-gpu lists it without a GPU, and falls back
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="'cuda' is not available"),
    ):
        InferenceSession(dynamic, provider="cuda")
    for threads in (0, 10**11):
        with pytest.raises(BackendError, match="threads must be from 1 to 1024"):
            InferenceSession(dynamic, threads=threads)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_predict_prints_classes_or_features(capsys, dynamic, fixed, picture):
    code, out, _ = run(capsys, dynamic, picture, picture, "--keep", "0.5", "--topk", "2")
    assert code == 0
    assert out.count("4 of 36 patches survive") == 2
    assert len(re.findall(r"^ +\d+\.\d\d%  (?:ant|bee|cat|dog|eel)$", out, re.MULTILINE)) == 4
    code, out, _ = run(capsys, fixed.parent, picture)
    assert code == 0
    assert "features 12 x 32" in out
    assert "kept patches " in out


def test_predict_prints_json(capsys, dynamic, fixed, picture):
    _, out, _ = run(capsys, dynamic, picture, "--json", "--topk", "1")
    (found,) = json.loads(out)
    assert found["image"] == str(picture)
    assert found["kept_ids"] == list(range(36))
    assert found["classes"][0].keys() == {"index", "name", "probability"}
    _, out, _ = run(capsys, fixed, picture, "--json")
    (found,) = json.loads(out)
    assert found["features"]["shape"] == [12, 32]
    assert len(found["features"]["cls"]) == 32


def test_predict_refuses_in_one_line(capsys, dynamic, fixed, picture, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:300])
    for arguments, message in (
        ((dynamic, broken), f"1 of 1 pictures cannot be read: {broken} (image file is truncated"),
        ((dynamic, tmp_path / "no.png"), "no.png (it does not exist)"),
        ((tmp_path, picture), "there is no model at"),
        ((fixed, picture, "--keep", "0.5"), "fixed at 0.7"),
        ((dynamic, picture, "--keep", "7"), "keep must be in (0, 1]"),
        ((dynamic, picture, "--topk", "0"), "error: topk must be at least 1, not 0\n"),
        ((dynamic, picture, "--provider", "abacus"), "unknown provider 'abacus'"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def _tensors(kind: str, text: str) -> dict[str, tuple[str, list[int]]]:
    pattern = rf'{kind} \[ {{ name: "(\w+)", data_type: (\w+), dims: \[([^]]*)\]'
    return {name: (dtype, [int(x) for x in dims.split(",")]) for name, dtype, dims in re.findall(pattern, text)}


def test_triton_configuration_matches_the_model(dynamic, fixed, tmp_path):
    for path in (dynamic, fixed):
        info = InferenceSession(path).info
        root = triton.write_repository(path, info, tmp_path)
        text = (root / "config.pbtxt").read_text()
        assert f'name: "{root.name}"' in text
        assert 'backend: "onnxruntime"' in text
        session = runtime.session(root / "1" / "model.onnx")
        batched = int(re.search(r"max_batch_size: (\d+)", text).group(1)) > 0
        assert batched == ("dynamic_batching" in text) == (path == fixed)
        for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
            declared = _tensors(kind, text)
            assert list(declared) == [value.name for value in values]
            for value in values:
                dtype, dims = declared[value.name]
                assert dtype == {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}[value.type]
                shape = [size if isinstance(size, int) else -1 for size in value.shape] or [1]
                assert ([-1, *dims] if batched else dims) == shape
        assert ("keep" in _tensors("input", text)) == (path == dynamic)
        assert InferenceSession(root / "1" / "model.onnx").run(pixels(2, info.model)).kept_ids.shape[0] == 2


@pytest.mark.parametrize("keep", [0.7, None])
def test_triton_gets_the_images_of_an_int8_model_one_by_one(tmp_path, keep):
    done = exported(tmp_path / "narrow", keep=keep, dtype="int8")
    text = (triton.write_repository(done.path, done.info, tmp_path) / "config.pbtxt").read_text()
    assert "dynamic_batching" not in text
    most = int(re.search(r"max_batch_size: (\d+)", text).group(1))
    dims = _tensors("input", text)["pixel_values"][1]
    assert (most, dims) == ((1, [3, 24, 24]) if keep else (0, [1, 3, 24, 24]))


def test_triton_offers_no_input_with_a_default(tmp_path):
    done = exported(tmp_path / "default", keep=None, keep_default=True)
    root = triton.write_repository(done.path, done.info, tmp_path)
    served = onnx.load(root / "1" / "model.onnx")
    assert "keep" not in {tensor.name for tensor in served.graph.initializer}


# The first line of what onnxruntime-openvino 1.24.1 says, cut, and its last; and what onnxruntime 1.22.1 says, cut.
OPENVINO = (
    "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: basic_backend.cc:136 BasicBackend::BasicBackend"
    "(...) [OpenVINO-EP] Exception while Reading network: Check 'false' failed at src/frontends/onnx/frontend/src/"
    "frontend.cpp:221:\nFrontEnd API failed with GeneralFailure:\n"
    "OpenVINO does not support the following ONNX operations: Attention\n\n"
)
OLD = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from m failed: model.cc:181 onnxruntime::Model::Model(...) Unsupported "
    "model IR version: 11, max supported IR version: 10\n"
)


@pytest.mark.parametrize(("provider", "text"), [("openvino", OPENVINO), ("cpu", OLD)])
def test_a_runtime_without_opset_23_is_one_line_that_says_what_to_do(dynamic, monkeypatch, provider, text):
    """With the recorded words: the runtimes themselves share their import name with the one that is installed."""

    class Old:
        def __init__(self, *arguments: object, **options: object) -> None:
            raise RuntimeError(text)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Old)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [runtime.PROVIDERS[provider]])
    with pytest.raises(ModelFileError) as caught:
        InferenceSession(dynamic, provider=provider)
    assert str(caught.value).endswith(f"does not know opset 23, which {dynamic} has; export it again with --opset 20")
    assert len(str(caught.value)) < 150 + len(str(dynamic))


def test_backend_conforms():
    results = runner.run(runner.Options(name="onnx", max_examples=3))
    failed = [f"{r.check.name} {r.dtype}: {r.message}" for r in results if r.verdict not in ("passed", "not run")]
    assert not failed
    assert sum(r.verdict == "passed" for r in results) > 40


def test_backend_refuses_what_it_cannot():
    backend = registry.create("onnx", device="auto")
    with pytest.raises(BackendError, match="not 'tpu'; choose one with --device, or --device auto"):
        registry.create("onnx", device="tpu")
    double = {name: value.astype(np.float64) for name, value in weights().items()}
    with pytest.raises(BackendError, match="float32 or float16, not in float64"):
        backend.encode(CONFIG, double, pixels(1))
    with pytest.raises(BackendError, match="does not train"):
        backend.create_pretrainer(None)


def test_backend_holds_few_models():
    backend = registry.create("onnx")
    first = weights()
    outputs = [backend.encode(CONFIG, first | {"norm.bias": np.full(32, i, np.float32)}, pixels(1)) for i in range(6)]
    shifts = [np.median(out.last_hidden_state - outputs[0].last_hidden_state) for out in outputs]
    np.testing.assert_allclose(shifts, range(6), atol=1e-4)
