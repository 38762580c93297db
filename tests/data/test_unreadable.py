"""Pictures that cannot be read: left out, counted and named with the reason by every command."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
from PIL import Image
from rich.console import Console

from pcae.cli import main as cli
from pcae_core import FinetuneConfig, checkpoint, registry
from pcae_core.config import DataConfig, PretrainConfig
from pcae_core.config.data import Reading
from pcae_core.data import CorruptLog, TrainLoader, eval_batches, images, open_source
from pcae_core.data.transforms import training_pipeline
from pcae_core.errors import ImageError
from pcae_core.evaluation.evaluate import evaluate
from pcae_core.storage.run import Run
from pcae_core.training.finetune import finetune

COUNT = 24  # images of a split, in two classes
TRUNCATED, UNKNOWN, LARGE = 5, 10, 15
BAD = {"train": (TRUNCATED, UNKNOWN, LARGE), "test": (TRUNCATED, LARGE)}
REASONS = {TRUNCATED: "truncated", UNKNOWN: "cannot identify its format", LARGE: "40 x 40 pixels are more than max_pix"}
READING = Reading(max_pixels=1000)
WANTED = ("--max-pixels", 1000, "--max-corrupt", 0.2)


def picture(number: int, size: int = 16) -> bytes:
    """A square, or a disc when the number is odd, as PNG."""
    rng = np.random.default_rng(number)
    values = rng.integers(0, 60, (size, size), dtype=np.uint8)
    rows, columns = np.mgrid[:size, :size] - size / 2
    inside = rows**2 + columns**2 < 20 if number % 2 else np.maximum(abs(rows), abs(columns)) < 4
    values[inside] = 220
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def files_of(split: str) -> list[bytes]:
    files = [picture(number + (0 if split == "train" else 100)) for number in range(COUNT)]
    for number in BAD[split]:
        files[number] = {
            TRUNCATED: files[number][:-40], UNKNOWN: b"no picture", LARGE: picture(number, 40),
        }[number]  # fmt: skip
    return files


def write_folder(folder: Path) -> None:
    for split in BAD:
        for number, data in enumerate(files_of(split)):
            place = folder / split / "ab"[number * 2 // COUNT] / f"{number:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)


def write_hugging_face(folder: Path) -> None:
    datasets = importlib.import_module("datasets")
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    splits = {}
    for split in BAD:
        rows = [{"bytes": data, "path": None} for data in files_of(split)]
        labels = [number * 2 // COUNT for number in range(COUNT)]
        splits[split] = datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)
    datasets.DatasetDict(splits).save_to_disk(folder)


@pytest.fixture(scope="module", params=[write_folder, write_hugging_face], ids=["folder", "hugging face"])
def data(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    request.param(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "set"
    write_folder(folder)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """The same images without those that cannot be read, as arrays."""
    folder = tmp_path_factory.mktemp("good")
    for split, bad in BAD.items():
        files = {number: data for number, data in enumerate(files_of(split)) if number not in bad}
        pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in files.values()]
        labels = np.array([number * 2 // COUNT for number in files])
        np.savez(folder / f"{split}.npz", images=np.stack(pixels), labels=labels, class_names=np.array(["a", "b"]))
    return folder


def command(*arguments: object) -> int:
    return cli.run(list(map(str, arguments)))


def pretrain(data: Path, out: Path, *more: object) -> int:
    return command("pretrain", "--data", data, "--out", out, *runs.SETTINGS, "--steps", 6, "--loader.workers", 0, *more)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "pretrained"
    assert pretrain(photos, out, "--max-corrupt", 0.2, "--loader.max-pixels", 1000) == 0
    return out


@pytest.fixture(scope="module")
def tuned(run, photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "tuned"
    settings = {"pretrained": str(run), "data": str(photos), "out": str(out), "max_corrupt": 0.2, "batch_size": 8}
    settings |= {"steps": 3, "device": "cpu", "tensorboard": False, "loader": {"workers": 0}}
    finetune(FinetuneConfig.from_dict(settings), Console(quiet=True))
    return out


# One account, whatever the source


def test_evaluation_and_training_name_the_same_images_with_the_reasons(data):
    source = open_source(data, 1, "train", READING)
    config = PretrainConfig(model={"image_size": 16, "patch_size": 4, "in_chans": 1}, batch_size=COUNT)
    log = CorruptLog(source, 0.2)
    batches = list(eval_batches(source, config.model, config.loader, 7, log))
    assert np.concatenate([batch.ids for batch in batches]).tolist() == [
        number for number in range(COUNT) if number not in BAD["train"]
    ]
    (line,) = log.summary()
    assert "3 of 24 images in" in line
    for workers in (0, 1):
        settings = config.model_copy(update={"loader": DataConfig(workers=workers)})
        with TrainLoader(source, settings, training_pipeline(settings), start_step=0, total_steps=1) as loader:
            (batch,) = loader
        assert set(batch.corrupt) == set(BAD["train"])
        for number, reason in batch.corrupt.items():
            assert REASONS[number] in reason
            assert f"{source.name(number)} ({reason})" in line


def test_evaluation_is_that_of_the_readable_images(data, good, run, capsys):
    reference, nothing = evaluate(registry.create("numpy"), run, good, ["student"])
    found, lines = evaluate(registry.create("numpy"), run, data, ["student"], reading=READING, max_corrupt=0.2)
    assert found == reference
    assert nothing == []
    assert [line.partition(" images")[0] for line in lines] == ["3 of 24", "2 of 24"]
    assert command("evaluate", run, "--data", data, "--encoder", "student", "--backend", "numpy", *WANTED) == 1
    printed = capsys.readouterr()
    assert f"{found['student'].knn.top1:.2f}" in printed.out
    assert "3 of 24 images" in printed.err.splitlines()[-1]
    assert "2 of 24 images" in printed.err.splitlines()[-1]


def test_too_many_end_the_work_in_one_line(data, run, tmp_path, capsys):
    for done in (
        lambda: pretrain(data, tmp_path / "run"),
        lambda: command("evaluate", run, "--data", data, "--encoder", "student", "--max-corrupt", 0.01),
    ):
        assert done() == 1
        assert (
            "more than max_corrupt 0.01 allows; see why, repair or remove them, or raise max_corrupt: "
            in (capsys.readouterr().err.splitlines()[-1])
        )


def test_a_run_that_ends_for_it_loses_no_step(photos, tmp_path):
    more = ("--loader.max-pixels", 1000)
    assert pretrain(photos, tmp_path / "run", *more, "--max-corrupt", 0.1) == 1
    step = checkpoint.read_manifest(checkpoint.find(tmp_path / "run")).step
    assert 0 < step < 6
    for name in ("run", "whole"):
        assert pretrain(photos, tmp_path / name, *more, "--max-corrupt", 0.2) == 0
    assert [row["step"] for row in runs.metrics(tmp_path / "run")] == list(range(1, 7))
    runs.assert_same_tensors(*(checkpoint.find(tmp_path / name) for name in ("run", "whole")))


def test_evaluation_goes_on_unless_told_otherwise(run, tuned, photos, capsys):
    for target, *more in ((run, "--encoder", "student"), (tuned, "--keep", 1.0)):
        given = ("evaluate", target, "--data", photos, *more)
        assert command(*given) == 1
        assert "cannot be read and are left out: " in capsys.readouterr().err.splitlines()[-1]
        assert command(*given, "--max-corrupt", 0.01) == 1
        assert "more than max_corrupt 0.01 allows" in capsys.readouterr().err
        assert command(*given, "--max-corrupt", 2) == 2
        assert "max_corrupt must be from 0 to 1, not 2" in capsys.readouterr().err


def test_processes_end_together_when_nothing_can_be_scored(run, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    for number in BAD["train"]:
        (data / "train" / "ab"[number * 2 // COUNT] / f"{number:02}.png").unlink()
    for picture in (data / "test").glob("*/*.png"):
        picture.write_bytes(b"no picture")
    arguments = ["finetune", run, "--data", data, "--out", tmp_path / "run", "--steps", 2, "--batch-size", 8]
    process = runs.started(runs.torchrun(*arguments, "--device", "cpu", "--loader.workers", 0))
    _, err = process.communicate()
    ours = [line for line in err.splitlines() if "pcae: error: " in line]
    assert len(ours) == 2
    assert any(f"none of the {COUNT} images" in line for line in ours)
    assert any("rank 0 cannot score the test split, and says why" in line for line in ours)
    assert "[rank1]: Traceback" not in err


# Commands


def test_pretraining_goes_on_and_warns_with_the_reason(photos, tmp_path, caplog):
    assert pretrain(photos, tmp_path / "run", "--max-corrupt", 0.2, "--loader.max-pixels", 1000) == 0
    assert "replaced by the next readable image" in caplog.text
    for number, reason in REASONS.items():
        assert re.search(rf"{number:02}\.png \([^)]*{reason}", caplog.text)
    assert runs.metrics(tmp_path / "run")[-1]["corrupt_images"] == 3
    assert pretrain(photos, tmp_path / "run", "--max-corrupt", 0.3, "--loader.max-pixels", 1000) == 0  # free to change


def test_fine_tuning_scores_the_readable_images_and_says_how_many(tuned):
    rows = [row for row in runs.metrics(tuned) if "top1" in row]
    assert rows
    assert {row["scored_images"] for row in rows} == {COUNT - len(BAD["test"])}
    assert checkpoint.read_manifest(Run.open(tuned).best).metrics["scored_images"] == COUNT - len(BAD["test"])


def test_a_keep_table_is_incomplete(tuned, photos, capsys):
    assert command("evaluate", tuned, "--data", photos, "--keep", 1.0, "--max-corrupt", 0.2, "--backend", "torch") == 1
    printed = capsys.readouterr()
    assert "1.00" in printed.out
    assert "2 of 24 images" in printed.err


@pytest.fixture(scope="module")
def model(tuned, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model") / "m"
    assert command("export", tuned, out) == 0
    return out


def test_export_measures_on_the_readable_images(tuned, photos, tmp_path, capsys, caplog):
    assert command("export", tuned, tmp_path / "m", "--dtype", "fp16", "--data", photos) == 0
    assert "against fp32 on 22 images" in capsys.readouterr().out
    assert "left out: a/05.png (" in caplog.text


def predict(capsys, model: Path, *arguments: object) -> tuple[int, str, str]:
    code = command("predict", model, *arguments)
    return code, *capsys.readouterr()


def test_predictions_of_the_others_are_printed(model, photos, tmp_path, capsys):
    folder = photos / "test" / "b"
    fine, large, missing = folder / "20.png", folder / f"{LARGE}.png", tmp_path / "gone.png"
    limit = ("--max-pixels", 1000)
    code, out, err = predict(capsys, model, missing, fine, large, *limit)
    assert code == 1
    assert out == predict(capsys, model, fine)[1]
    assert f"2 of 3 pictures cannot be read: {missing} (it does not exist), {large} (40 x 40 pixels are more" in err
    code, out, _ = predict(capsys, model, large, fine, "--json", *limit)
    assert code == 1
    bad, found = json.loads(out)
    assert bad == {"image": str(large), "error": "40 x 40 pixels are more than max_pixels 1000"}
    assert [found] == json.loads(predict(capsys, model, fine, "--json")[1])
    assert predict(capsys, model, large, fine)[0] == 0  # within the usual limit
    code, out, _ = predict(capsys, model, missing, "--json")
    assert (code, json.loads(out)) == (2, [{"image": str(missing), "error": "it does not exist"}])


def test_the_others_are_drawn(run, photos, tmp_path, capsys):
    out = tmp_path / "pictures"
    assert command("visualize", run, photos / "train", photos / "gone.png", "--limit", 50, "--out", out) == 1
    printed = capsys.readouterr()
    assert f"{COUNT - 3} images" in printed.out
    assert len(list(out.glob("[0-9]*.png"))) == COUNT - 3
    for name in ("a/05.png (", "a/10.png (cannot identify", "b/15.png (40 x 40 pixels", "gone.png (it does not exist)"):
        assert name in printed.err
    assert command("visualize", run, photos / "train", "--limit", 50, "--out", out, "--max-pixels", 2000) == 1
    assert f"{COUNT - 2} images" in capsys.readouterr().out


def test_reports_name_them_and_go_on(run, photos, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert command("report", copy, "--data", photos, "--images", 20) == 0
    page = (copy / "report.html").read_text()
    assert "a/05.png" in page
    assert f"percent of {COUNT - 2} images" in page
    assert "2 of 24 images" in page
    assert command("report", copy, "--data", photos, "--images", 1, "--max-corrupt", 0.01) == 0
    assert "more than max_corrupt 0.01 allows" in capsys.readouterr().err


# Pillow's own limits and words


def test_pillow_s_limit_is_ours_to_set(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(picture(0, 40))
    for pillows in (1000, 700):  # Pillow itself warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with pytest.raises(ImageError, match=rf"more than max_pixels {pillows}$"):
            images.read(tmp_path / "x.png", "x.png", 1)
        assert images.read(tmp_path / "x.png", "x.png", 1, max_pixels=1600).size == (40, 40)


def test_no_warning_of_pillow_reaches_the_screen(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 400
    Image.new("L", (40, 40)).save(tmp_path / "exif.jpg", exif=exif.tobytes()[:60])
    (tmp_path / "large.png").write_bytes(picture(0, 40))
    code = f"""
from pathlib import Path
from PIL import Image
from pcae_core.data import images
from pcae_core.errors import ImageError
Image.MAX_IMAGE_PIXELS = 1600
images.read(Path({str(tmp_path)!r}, "exif.jpg"), "exif.jpg", 1)
Image.MAX_IMAGE_PIXELS = 1000
try:
    images.read(Path({str(tmp_path)!r}, "large.png"), "large.png", 1)
except ImageError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")
