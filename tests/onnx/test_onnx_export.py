"""Exported models against the reference; what is written beside them; what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import runs
from onnx.reference import ReferenceEvaluator
from onnx_models import CLASSES, CONFIG, HEADLESS, KEEPS, OTHERS, exported, pixels, weights
from safetensors.numpy import save

from pcae.cli import main as cli
from pcae_core import checkpoint, parameters, registry, schedule
from pcae_core.config import PretrainConfig
from pcae_core.errors import ConfigError, ConformanceError
from pcae_core.storage.checkpoint import DataPosition
from pcae_onnx import graph, model, ops, runtime, verify, writer
from pcae_onnx.session import InferenceSession


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint as pre-training writes it."""
    folder = tmp_path_factory.mktemp("onnx") / "run"
    config = PretrainConfig(model=HEADLESS)
    position = DataPosition(fingerprint="none", num_samples=1, samples_seen=0)
    checkpoint.save(folder / "checkpoints", parameters.pretraining_state(HEADLESS, 0), config, position, {}, {})
    return folder


def assert_equals_reference(outputs, config, batch: int, keep: float) -> None:
    expected = registry.create("numpy").encode(config, weights(config), pixels(batch, config), keep)
    np.testing.assert_array_equal(outputs.kept_ids, expected.kept_ids)
    np.testing.assert_allclose(outputs.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-4)
    if config.num_classes:
        np.testing.assert_allclose(outputs.logits, expected.logits, rtol=0, atol=1e-4)
    else:
        assert outputs.logits is None


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("config", [CONFIG, HEADLESS], ids=["head", "headless"])
def test_dynamic_model_equals_reference(tmp_path, config, opset):
    exported(tmp_path, config, keep=None, opset=opset)
    session = InferenceSession(tmp_path)
    for keep in KEEPS:
        for batch in (1, 2, 7):
            assert_equals_reference(session.run(pixels(batch, config), keep), config, batch, keep)
    assert_equals_reference(session.run(pixels(2, config)), config, 2, 1.0)


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("settings", OTHERS)
def test_other_encoders_equal_reference(tmp_path, settings, opset):
    config = CONFIG.model_copy(update=settings)
    exported(tmp_path, config, keep=None, opset=opset)
    session = InferenceSession(tmp_path)
    for keep in (1.0, 0.6):
        assert_equals_reference(session.run(pixels(2), keep), config, 2, keep)


@pytest.mark.parametrize("keep", KEEPS)
def test_static_model_equals_reference(tmp_path, keep):
    config = CONFIG if keep > 0.7 else HEADLESS
    exported(tmp_path, config, keep=keep, opset=20 if keep == 0.6 else 23)
    session = InferenceSession(tmp_path / "model.onnx", threads=1)
    for batch in (1, 2, 7):
        assert_equals_reference(session.run(pixels(batch, config)), config, batch, keep)


def test_raw_center_and_a_default_ratio_without_input(tmp_path):
    config = CONFIG.model_copy(update={"reduction": CONFIG.reduction.model_copy(update={"center": "raw"})})
    path = exported(tmp_path, config, keep=None).path
    assert_equals_reference(InferenceSession(path).run(pixels(2), 0.6), config, 2, 0.6)
    path = exported(tmp_path, config, keep=None, keep_default=True).path
    hidden, _, _ = runtime.session(path).run(None, {"pixel_values": pixels(2)})
    assert hidden.shape[1] == 1 + config.num_patches


def test_counts_in_the_graph_follow_the_contract():
    g = graph.Graph()
    ratio = ops.read_keep_nodes(g, g.input("keep", "float32", ["n"]))
    tokens = (196, 49, 36, 1, 1024)
    for n in tokens:
        g.output(ops.num_kept(g, n, ratio), f"of_{n}")
    session = runtime.session(writer.to_bytes(g.proto("counts", {}), []))
    rng = np.random.default_rng(0)
    keeps = np.concatenate([np.arange(1, 10_001) / 10_000, np.round(rng.uniform(1e-6, 1, 20_000), 6)])
    for n, counts in zip(tokens, session.run(None, {"keep": keeps.astype(np.float32)}), strict=True):
        assert counts.tolist() == [schedule.num_kept(n, keep) for keep in keeps.tolist()]
    assert all(ops.read_keep(keep) == keep for keep in keeps.tolist())
    assert ops.read_keep(1 / 3) == 0.333334


def test_ties_and_nan_keep_the_lower_ids(tmp_path):
    """Equal scores everywhere: with blank weights every token is the same; a NaN makes all scores NaN."""
    equal = {name: np.zeros_like(value) for name, value in weights().items()}
    g = graph.Graph()
    model.encoder(g, CONFIG, equal, 0.7, logits=True)
    session = runtime.session(writer.to_bytes(g.proto("blank", {}), g.weights))
    images = pixels(2)
    images[1, 0, 5, 5] = np.nan
    _, ids, _ = session.run(None, {"pixel_values": images})
    assert ids.tolist() == [list(range(ids.shape[1]))] * 2


@pytest.mark.parametrize("opset", [20, 23])
def test_nan_scores_stay_last_without_the_operator(tmp_path, opset):
    """In the runtime with all its rewriting, and in ONNX's evaluator; MNN has no IsNaN."""
    scores = np.random.default_rng(0).uniform(-1, 1, (6, 36)).astype(np.float32)
    for row, places in enumerate(([], [0], [3, 4, 35], range(30), range(35), range(36))):
        scores[row, list(places)] = np.nan
    g = graph.Graph(opset)
    g.input("scores", "float32", ["batch_size", 36])
    for k in (1, 7, 35):
        g.output(ops.lowest(g, "scores", k, "float32"), f"lowest_{k}")
    g.output(ops.order(g, "scores", "float32"), "order")
    content = writer.to_bytes(g.proto("nan", {}), [])
    expected = [np.sort(np.argsort(scores, axis=1, kind="stable")[:, :k], axis=1) for k in (1, 7, 35)]
    expected.append(np.argsort(scores, axis=1, kind="stable"))
    for run in (runtime.session(content).run, ReferenceEvaluator(onnx.load_from_string(content)).run):
        for got, want in zip(run(None, {"scores": scores}), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    written = onnx.load(exported(tmp_path, keep=None, opset=opset).path)
    assert "IsNaN" not in {node.op_type for node in written.graph.node}


def test_models_of_former_versions_are_loaded(tmp_path):
    """With a default of `keep`, IsNaN, and config.json as it was, which is not read."""
    path = exported(tmp_path, keep=None, keep_default=True).path
    proto = onnx.load(path)
    for node in proto.graph.node:
        if node.op_type == "Equal":
            node.op_type, node.name = "IsNaN", f"{node.name}_not"
            del node.input[1]
            where = next(other for other in proto.graph.node if node.output[0] in other.input)
            where.input[1], where.input[2] = where.input[2], where.input[1]
    onnx.save(proto, path)
    (tmp_path / "config.json").write_text('{"dtype": "fp32"}')
    assert_equals_reference(InferenceSession(tmp_path).run(pixels(2), 0.6), CONFIG, 2, 0.6)
    assert_equals_reference(InferenceSession(tmp_path).run(pixels(2)), CONFIG, 2, 1.0)


def test_a_required_ratio_is_asked_for(tmp_path):
    """ONNX Runtime itself names it; our session takes 1."""
    path = exported(tmp_path, keep=None).path
    with pytest.raises(ValueError, match="keep"):
        runtime.session(path).run(None, {"pixel_values": pixels(1)})
    assert InferenceSession(path).run(pixels(1)).kept_ids.shape == (1, CONFIG.num_patches)


def test_files_beside_the_model(tmp_path):
    info = exported(tmp_path / "my model", keep=0.7, class_names=CLASSES).info
    folder = tmp_path / "my model"
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "config.json", "preprocessor_config.json"}
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(CLASSES)}
    assert config["pcae"]["model"]["embed_dim"] == CONFIG.embed_dim
    assert json.loads((folder / "preprocessor_config.json").read_text())["crop_size"] == {"height": 24, "width": 24}
    proto = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {(entry.domain, entry.version) for entry in proto.opset_import} == {("", 23)}
    assert proto.ir_version == 11
    found = {entry.key: entry.value for entry in proto.metadata_props}
    assert found == info.to_metadata()
    assert json.loads(found["pcae.schedule"])["tokens_per_block"] == [37, 26, 26, 18, 18, 12]
    assert len(json.loads(found["pcae.weights_sha256"])) == 64
    assert info.name == "my_model"


def test_written_graph_equals_the_serialised_message(tmp_path):
    """The streamed file is what the protocol buffers' own writer gives, as far as its parser can tell."""
    g = graph.Graph()
    model.encoder(g, CONFIG, weights(), None, logits=True)
    writer.write(g.proto("name", {"key": "value"}), g.weights, tmp_path / "m.onnx")
    whole = g.proto("name", {"key": "value"})
    whole.graph.initializer.extend(onnx.numpy_helper.from_array(w.read(), w.name) for w in g.weights)
    assert onnx.load(tmp_path / "m.onnx") == whole


def test_export_imports_no_framework(run, tmp_path):
    code = (
        "import sys; from pcae.cli.main import run\n"
        f"assert run(['export', {str(run)!r}, {str(tmp_path)!r}, '--dynamic-keep']) == 0\n"
        "found = {name.partition('.')[0] for name in sys.modules} & {'torch', 'mindspore', 'jax', 'tensorflow'}\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=runs.environment())
    assert done.returncode == 0, done.stderr
    assert "verified in fp32: 18 runs of ONNX Runtime, 3 runs of ONNX's evaluator" in done.stdout


def test_wrong_weights_are_told_and_the_file_is_kept(tmp_path, monkeypatch, run, capsys):
    written = graph.Graph.weight

    def wrong(self, name, shape, read):
        return written(self, name, shape, (lambda: -read()) if name == "blocks.0.mlp.fc2.weight.T" else read)

    monkeypatch.setattr(graph.Graph, "weight", wrong)
    with pytest.raises(ConformanceError, match=r"ONNX Runtime at batch 1, keep 1: last_hidden_state differs .* by "):
        exported(tmp_path, keep=1.0)
    assert (tmp_path / "model.onnx").is_file()
    with pytest.raises(ConformanceError, match="keeps other patches"):
        exported(tmp_path, keep=0.5, atol=100.0)
    assert cli.run(["export", str(run), str(tmp_path / "out"), "--atol", "1e-5"]) == 1
    assert "more than 1e-05; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, "keep must be in"),
        ({"keep": 0.0}, "keep must be in"),
        ({"keep": 0.5, "keep_default": True}, "only a keep ratio that is an input"),
        ({"atol": 0.0}, "atol must be positive"),
        ({"class_names": ("a",)}, "1 class names do not fit 5 outputs"),
        ({"name": "../elsewhere"}, r"name '\.\./elsewhere' must be letters"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        exported(tmp_path, **options)


def test_large_models_are_verified_by_a_twin(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "LARGE_MACS", 1)
    monkeypatch.setattr(verify, "REFERENCE_MACS", 1)
    report = exported(tmp_path, keep=None).report
    assert [run[1:] for run in report.runs if run[0] == "ONNX Runtime"] == [(1, 1.0), (2, 0.7), (7, 0.5)]
    assert report.compared == 10 + 6
    assert report.worst < 1e-5


def test_evaluator_of_onnx_agrees(tmp_path):
    path = exported(tmp_path, keep=0.7, opset=20).path
    _, ids, logits = ReferenceEvaluator(onnx.load(path)).run(None, {"pixel_values": pixels(2)})
    expected = InferenceSession(path).run(pixels(2))
    np.testing.assert_array_equal(ids, expected.kept_ids)
    np.testing.assert_allclose(logits, expected.logits, atol=1e-5)


def test_command_line(run, tmp_path, capsys):
    data = runs.write_data(tmp_path / "shapes")
    out = tmp_path / "model"
    arguments = [
        "export",
        run,
        out,
        "--keep",
        "0.7",
        "--dtype",
        "int8",
        "--data",
        data,
        "--triton",
        tmp_path / "triton",
    ]
    assert cli.run([str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    assert "feature-extraction, int8, keep 0.7" in printed
    assert "measured against fp32 on 32 images of --data at keep 0.7:" in printed
    assert "speed " in printed
    assert (tmp_path / "triton" / "model" / "1" / "model.onnx").is_file()
    assert cli.run(["export", str(run), str(out), "--dtype", "fp16"]) == 0
    assert "WARNING: fp16: random pixels say little" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "0.7", "--dynamic-keep"], "give one of them"),
        (["--keep", "0.7", "--keep-default"], "--keep-default gives a default to the input of --dynamic-keep"),
        (["--data", "photos"], "--data gives images on which fp16 and int8 are measured; leave it out"),
        (["--keep", "2"], "keep must be in (0, 1], not 2.0"),
        (["--task", "image-classification"], "has no label head"),
    ],
)
def test_wrong_requests_are_one_line(run, tmp_path, capsys, arguments, message):
    assert cli.run(["export", str(run), str(tmp_path), *arguments]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_damaged_checkpoints_are_refused(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    folder = copy / "checkpoints" / "step_00000000"
    file, manifest = folder / "student.safetensors", folder / "manifest.json"
    described = json.loads(manifest.read_text())

    def refused() -> str:
        assert cli.run(["export", str(copy), str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    file.write_bytes(file.read_bytes()[:-1])
    assert "truncated or changed" in refused()
    for content, message in ((b"no tensors", "is not a safetensors file"), (save({"cls_token": np.zeros(3)}), "(3,)")):
        file.write_bytes(content)
        entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.write_text(json.dumps(described | {"files": described["files"] | {file.name: entry}}))
        assert message in refused()
    manifest.write_text(json.dumps(described | {"format": 2}))
    assert "has checkpoint format 2, not 1" in refused()


def test_no_checkpoint_and_no_place_to_write(run, tmp_path, capsys):
    assert cli.run(["export", str(tmp_path), str(tmp_path / "x")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.run(["export", str(run), str(tmp_path / "file")]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_missing_packages_name_the_extra(run, tmp_path):
    for module, extra in (("onnx", "onnx"), ("onnxruntime", "ort")):
        code = (
            "import importlib.util as util, sys; find = util.find_spec\n"
            f"util.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)\n"
            "from pcae.cli.main import run\n"
            f"codes = run(['export', {str(run)!r}, {str(tmp_path)!r}]), run(['predict', 'model', 'image'])\n"
            "assert codes == (2, 2), codes"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=runs.environment())
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f'pip install "pcae[{extra}]"') == 2
        assert done.stderr.count("\n") == 2


def test_student_or_teacher(run, tmp_path):
    state = checkpoint.load(run).state
    for side, arrays in (("student", state.student), ("teacher", state.teacher)):
        assert cli.run(["export", str(run), str(tmp_path / side), "--encoder", side]) == 0
        session = InferenceSession(tmp_path / side)
        expected = registry.create("numpy").encode(HEADLESS, arrays, pixels(1, HEADLESS))
        np.testing.assert_allclose(
            session.run(pixels(1, HEADLESS)).last_hidden_state, expected.last_hidden_state, atol=1e-4
        )
