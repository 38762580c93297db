"""`pcae visualize`: what is drawn is what the backend keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pages
import pytest
import runs
from PIL import Image

from pcae.cli import main as cli
from pcae.report import exported, panels, pictures, stages
from pcae.report.encoders import DrawnCheckpoint
from pcae_conformance import selections
from pcae_core import randomness, registry
from pcae_core.config import ModelConfig, PretrainConfig
from pcae_core.data import normalize
from pcae_core.errors import BackendError, ModelFileError
from pcae_core.parameters import pretraining_state
from pcae_core.reduction import excess
from pcae_core.storage.checkpoint import DataPosition, load, save
from pcae_onnx import writer
from pcae_onnx.session import InferenceSession

MODEL = ModelConfig(
    image_size=24, patch_size=4, in_chans=1, embed_dim=32, depth=7, num_heads=4, decoder_embed_dim=16,
    decoder_depth=1, decoder_num_heads=2, mask_ratio=0.6,
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("visualize") / "run" / "checkpoints"
    state, config = pretraining_state(MODEL, seed=3), PretrainConfig(model=MODEL, seed=5)
    return save(folder, state, config, DataPosition(fingerprint="0", num_samples=1, samples_seen=0), {}, {})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    runs.write_shapes(folder / "shapes.npz", 9, seed=0, size=24)
    return folder / "shapes.npz"


@pytest.fixture(scope="module")
def images(data) -> np.ndarray:
    shown = pictures.read_images([data], MODEL, 9)
    return normalize(shown.pixels, *PretrainConfig(model=MODEL).loader.normalization(1))


def visualize(*arguments: object) -> int:
    return cli.run(["visualize", *map(str, arguments)])


def drawn(folder: Path) -> dict[str, np.ndarray]:
    return pages.pictures(pages.assert_self_contained((folder / "index.html").read_text(encoding="utf-8")))


@pytest.mark.parametrize("backend", ["numpy", "torch", "onnx"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_drawn_tokens_are_those_that_the_backend_keeps(backend, side, checkpoint, data, images, tmp_path):
    options = ("--backend", backend, "--encoder", side, "--keep", 0.6, "--limit", 1)
    assert visualize(checkpoint, data, "--out", tmp_path, *options) == 0
    found = drawn(tmp_path)
    parameters = getattr(load(checkpoint).state, side)
    kept = registry.create(backend).encode(MODEL, parameters, images[:1], 0.6).kept_ids
    assert pages.bright_tokens(found["after block 5"], found["input"], 6) == np.asarray(kept)[0].tolist()
    assert len(pages.bright_tokens(found["after block 1"], found["input"], 6)) == 21


@pytest.mark.parametrize(("backend", "atol"), [("numpy", 1e-12), ("torch", 1e-6), ("onnx", 1e-6)])
def test_stages_are_the_reference_s(backend, atol, checkpoint, images):
    student = load(checkpoint).state.student
    every = np.tile(np.arange(MODEL.num_patches), (len(images), 1))
    wide = {name: value.astype(np.float64) for name, value in student.items()}
    expected = selections.stages(MODEL, wide, images.astype(np.float64), every, 0.5, with_prefix=True)
    found = stages.encoder_stages(registry.create(backend), MODEL, student, images, 0.5)
    assert [stage.block for stage in found] == [0, 2, 4]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.kept_ids, theirs.kept_ids)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=atol)
        assert (excess(ours) < 0).all()


def test_pretraining_is_the_backend_s(checkpoint, data, images, tmp_path):
    assert visualize(checkpoint, data, "--out", tmp_path, "--limit", 1, "--seed", 9) == 0
    state, noise = load(checkpoint).state, randomness.mask_noise(9, 0, 0, 1, MODEL.num_patches)
    out = registry.create("numpy").pretraining_forward(MODEL, state.student, state.teacher, images[:1], noise)
    found = drawn(tmp_path)
    visible = pages.bright_tokens(found["visible"], found["input"], 6)
    assert visible == out.visible_ids[0].tolist()
    assert pages.bright_tokens(found["targets"], found["input"], 6) == out.target_ids[0].tolist()
    assert pages.bright_tokens(found["masked"], found["input"], 6) == sorted(set(range(36)) - set(visible))


def test_a_backend_that_does_not_train_draws_no_pretraining(checkpoint, images):
    why = DrawnCheckpoint(checkpoint, registry.create("onnx")).splits(images, 0)
    assert why == "the backend 'onnx' does not train; choose another --backend to see pre-training"


def test_noise_is_the_image_s_whatever_the_batch(checkpoint, images):
    encoder = DrawnCheckpoint(checkpoint, registry.create("numpy"))
    whole, part = encoder.splits(images, 0), encoder.splits(images[4:], 4)
    np.testing.assert_array_equal(whole[6].visible, part[2].visible)


def test_a_backend_that_keeps_other_tokens_is_pointed_out(checkpoint, images):
    """Of a backend that keeps the first tokens, and of one that keeps a token that it had dropped."""
    backend = registry.create("numpy")
    encode_stages = backend.encode_stages

    def first_tokens(*arguments):
        trace = encode_stages(*arguments)
        kept = [np.tile(np.arange(stage.kept_ids.shape[1]), (len(images), 1)) for stage in trace.stages]
        entered = [trace.stages[0].ids, *kept]
        stages = [dataclasses.replace(stage, ids=entered[i], kept_ids=kept[i]) for i, stage in enumerate(trace.stages)]
        return dataclasses.replace(trace, stages=tuple(stages))

    backend.encode_stages = first_tokens
    _, warnings = DrawnCheckpoint(checkpoint, backend).stages(images)
    assert "after block 1 the backend 'numpy' kept a token whose score" in warnings[0]

    def dropped_token(*arguments):
        trace = first_tokens(*arguments)
        last = dataclasses.replace(trace.stages[-1], kept_ids=np.full((len(images), 1), MODEL.num_patches - 1))
        return dataclasses.replace(trace, stages=(*trace.stages[:-1], last))

    backend.encode_stages = dropped_token
    with pytest.raises(BackendError, match="after block 5 the backend 'numpy' keeps tokens that an earlier stage had"):
        DrawnCheckpoint(checkpoint, backend).stages(images)


@pytest.mark.parametrize("options", [{"keep": None}, {"keep": 0.6}, {"keep": 0.6, "dtype": "fp16"}, {"keep": 1.0}])
def test_an_exported_model_is_watched(options, tmp_path, monkeypatch):
    if options["keep"] == 0.6:
        monkeypatch.setattr(writer, "EXTERNAL_DATA_BYTES", 0)  # the weights lie beside the model
    path = onnx_models.exported(tmp_path, onnx_models.HEADLESS, **options).path
    pixels = onnx_models.pixels(3)
    encoder = exported.DrawnExport(path, 0.7 if options["keep"] is None else None)
    found, warnings = encoder.stages(pixels)
    assert warnings == []
    if options["keep"] == 1.0:
        assert found == []
        return
    keep = options["keep"] or 0.7
    kept = InferenceSession(path).run(pixels, 0.7 if options["keep"] is None else None).kept_ids
    np.testing.assert_array_equal(found[-1].kept_ids, kept)
    if options.get("dtype") != "fp16":
        config, weights = onnx_models.HEADLESS, onnx_models.weights()
        expected = stages.encoder_stages(registry.create("numpy"), config, weights, pixels, keep)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.block == theirs.block
            np.testing.assert_array_equal(ours.kept_ids, theirs.kept_ids)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_a_model_that_does_not_name_its_stages_is_refused(tmp_path, capsys):
    """As those that former versions exported."""
    path = onnx_models.exported(tmp_path / "model", onnx_models.HEADLESS, keep=None).path
    proto = onnx.load(path)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("stage.1", "Where_1") for name in names]
    onnx.save(proto, path)
    assert visualize(path, path, "--out", tmp_path / "out") == 2
    assert "are not found in its graph; export the model again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "op", "options"),
    [("stage.2.kept_ids", "Add", {}), ("stage.0.scores", "Concat", {"axis": 1}), ("stage.1.scores", "Equal", {})],
)
def test_stages_that_do_not_fit_are_refused(name, op, options, tmp_path):
    """A graph that was changed: ids twice as high, twice as many scores, scores that are no numbers."""
    path = onnx_models.exported(tmp_path, onnx_models.HEADLESS, keep=0.6).path
    proto = onnx.load(path)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["before" if value == name else value for value in names]
    proto.graph.node.append(onnx.helper.make_node(op, ["before", "before"], [name], **options))
    onnx.save(proto, path)
    with pytest.raises(ModelFileError, match="the stages in the model's graph do not fit its images"):
        exported.DrawnExport(path).stages(onnx_models.pixels(3))


def test_pictures_of_an_exported_model(tmp_path, capsys):
    path = onnx_models.exported(tmp_path / "model", onnx_models.HEADLESS).path
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    image.save(tmp_path / "<b>&.png")
    assert visualize(path, tmp_path / "<b>&.png", "--out", tmp_path / "out") == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    elements = pages.assert_self_contained(page)
    assert "without teacher and decoder" in elements.text
    assert "drops no token" in elements.text
    assert "<b>&.png" in elements.text
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "001_b.png",
        "contact-sheet.png",
        "index.html",
    ]
    assert "1 images" in capsys.readouterr().out


def test_contact_sheet_has_every_image(checkpoint, data, tmp_path):
    assert visualize(checkpoint, data, "--out", tmp_path, "--backend", "numpy", "--limit", 9) == 0
    assert len(list(tmp_path.glob("0*.png"))) == 9
    with Image.open(tmp_path / "001_shapes_npz_0.png") as single, Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.height > 9 * panels.SIDE
        assert single.width == sheet.width


def test_colours_of_scores():
    shown = panels.colour(np.array([0.2, np.nan, 0.4, 0.3]))
    assert tuple(shown[0]) == panels.SCALE[0]
    assert tuple(shown[1]) == tuple(shown[2]) == panels.SCALE[-1]
    assert (panels.colour(np.full(3, 0.5)) == panels.SCALE[0]).all()
    assert panels.colour(np.full(2, np.nan)).shape == (2, 3)


def test_images_of_other_channels_are_drawn_grey():
    pixels = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40)])
    assert panels.picture(pixels).shape == (224, 224, 3)
    assert (panels.picture(pixels) == 25).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CHECKPOINT", "nowhere.png"], "there is no image to draw: nowhere.png (it does not exist)"),
        (["nowhere", "DATA"], "nowhere does not exist"),
        (["nowhere.onnx", "DATA"], "there is no model at nowhere.onnx"),
        (["CHECKPOINT", "DATA", "--keep", "0"], "keep must be in (0, 1], not 0"),
        (["CHECKPOINT", "DATA", "--limit", "0"], "limit must be at least 1"),
        (["CHECKPOINT", "DATA", "--seed", "-1"], "seed must be from 0"),
        (["CHECKPOINT", "DATA", "--backend", "jacks"], "unknown backend 'jacks'"),
        (["nowhere.onnx", "DATA", "--backend", "numpy"], "an exported model has neither"),
        (["CHECKPOINT", "TEXT"], "text.png (cannot identify its format; known: JPEG"),
        (["CHECKPOINT", "DATA", "--out", "TEXT"], "choose another --out"),
    ],
)
def test_wrong_requests_get_one_line(arguments, message, checkpoint, data, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    names = {"CHECKPOINT": checkpoint, "DATA": data, "TEXT": tmp_path / "text.png"}
    request = [names.get(argument, argument) for argument in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "out"]
    assert visualize(*request, *out) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_a_fixed_keep_ratio_cannot_be_chosen(tmp_path, capsys):
    path = onnx_models.exported(tmp_path, onnx_models.HEADLESS, keep=0.6).path
    assert visualize(path, path, "--out", tmp_path / "out", "--keep", 0.5) == 2
    assert "fixed at 0.6" in capsys.readouterr().err
