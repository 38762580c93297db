"""`pcae report`: a page about a run that is complete, safe, and readable on a phone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import browser
import numpy as np
import pages
import pytest
import runs

from pcae.cli import main as cli
from pcae.report import charts, history, page, pictures
from pcae_core import registry
from pcae_core.data import normalize
from pcae_core.storage.run import Run
from pcae_core.storage.stored_encoder import StoredEncoder

ODD_NAME = "<script>alert(1)<&\"'"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return runs.write_data(tmp_path_factory.mktemp("report") / "shapes")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / ODD_NAME
    settings = (*runs.SETTINGS, "--steps", 6, "--checkpoint-every", 2)
    done = runs.pcae("pretrain", "--data", data, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def report(*arguments: object) -> int:
    return cli.run(["report", *map(str, arguments)])


def page_of(run: Path, *options: object) -> pages.Elements:
    out = run / "report.html"
    assert report(run, "--out", out, *options) == 0
    return pages.assert_self_contained(out.read_text(encoding="utf-8"))


def test_a_finished_run(finished, tmp_path, capsys):
    assert report(finished, "--out", tmp_path / "page.html") == 0
    assert "wrote" in capsys.readouterr().out
    elements = pages.assert_self_contained((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert f"Run {ODD_NAME}" in elements.text
    assert "6 of 6" in elements.text
    for heading in ("loss ratio", "effective ranks", "learning rate", "teacher's momentum", "throughput", "MAE step"):
        assert heading in elements.text
    for entry in ("embed_dim: 16", "framework", "The same at every step: kept_share", "--data DIR"):
        assert entry in elements.text
    charts_drawn = [attributes["aria-label"] for tag, attributes in elements.found if tag == "svg"]
    assert [label.partition(",")[0] for label in charts_drawn][:3] == ["loss", "loss ratio", "effective ranks"]


def test_pictures_are_of_what_each_checkpoint_keeps(run):
    found = pages.pictures(page_of(run, "--images", 1, "--keep", 0.6))
    assert list(found) == ["input", "before training", "step 2", "step 4", "step 6"]
    for step in (2, 4, 6):
        stored = StoredEncoder(run / "checkpoints" / f"step_{step:08d}")
        config = stored.config
        shown = pictures.read_images([Run(run).data], config.model, 1)
        pixels = normalize(shown.pixels, *config.loader.normalization(1))
        kept = registry.create("numpy").encode(config.model, dict(stored), pixels, 0.6).kept_ids
        assert pages.bright_tokens(found[f"step {step}"], found["input"], 4) == kept[0].tolist()


def test_evaluation_is_shown(run, data, capsys):
    elements = page_of(run, "--data", data)
    for text in ("k-NN top-1", "student", "teacher", "random"):
        assert text in elements.text
    unlabelled = run / "unlabelled.npz"
    np.savez(unlabelled, images=np.zeros((3, 16, 16), np.uint8))
    capsys.readouterr()
    elements = page_of(run, "--data", unlabelled)
    assert "Not measured" in elements.text
    assert "WARNING: no evaluation" in capsys.readouterr().err


def test_a_run_that_goes_on(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    odd = [
        "",
        "[1]",
        "null",
        '{"loss": 1}',
        '{"step": "5"}',
        '{"step": 3, "loss": 0.25, "<b>top1": 3.5, "<b>top2": null}',
        '{"step": 5, "loss": NaN, "loss_ratio": 1e999, "<b>top1": ' + "9" * 400 + "}",
        '{"step": 6, "<b>top1": 4.5, "huge": 1e300}',
        '{"step": 7, "lo',
    ]
    (run / "metrics.jsonl").write_text("\n".join([*lines, *odd]), encoding="utf-8")
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe")
    found = history.read(run / "metrics.jsonl")
    assert found.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.unreadable == 5
    assert found.series["loss"].values[2] == 0.25
    assert np.isnan(found.series["loss"].values[4])
    assert found.series["<b>top1"].steps.tolist() == [3, 5, 6]
    elements = page_of(run)
    assert "left out: 5." in elements.text
    assert "<b>top1 4.5" in elements.text
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    elements = page_of(run)
    assert "measured nothing" in elements.text
    assert "no checkpoint" in elements.text


def test_damage_is_named_and_does_not_stop_the_page(run, capsys):
    checkpoints = sorted((run / "checkpoints").iterdir())
    (checkpoints[0] / "student.safetensors").write_bytes(b"")
    (checkpoints[-1] / "manifest.json").write_text("{")
    elements = page_of(run)
    err = capsys.readouterr().err
    for path in (checkpoints[0], checkpoints[-1]):
        assert path.name in err
        assert path.name in elements.text
    assert list(pages.pictures(elements)) == ["input", "before training", "step 4"]


def test_a_checkpoint_may_vanish_while_it_is_read(run, monkeypatch, capsys):
    def gone(self, name):
        raise FileNotFoundError(2, "No such file or directory", f"{self.path}/student.safetensors")

    monkeypatch.setattr(StoredEncoder, "__getitem__", gone)
    assert list(pages.pictures(page_of(run))) == ["input", "before training"]
    assert capsys.readouterr().err.count("No such file") == 3


def test_data_that_are_gone_are_said_to_be_gone(run):
    config = (run / "config.yaml").read_text(encoding="utf-8").splitlines()
    changed = ["data: nowhere" if line.startswith("data:") else line for line in config]
    (run / "config.yaml").write_text("\n".join(changed), encoding="utf-8")
    assert "No pictures: there is no image and no data set at nowhere" in page_of(run).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a run's folder"),
        (["RUN", "--data", "nowhere"], "no data set at nowhere"),
        (["RUN", "--keep", "1.5"], "keep must be in (0, 1]"),
        (["RUN", "--images", "0"], "images must be at least 1"),
        (["RUN", "--backend", "jacks"], "unknown backend 'jacks'"),
        (["RUN", "--out", "RUN"], "choose another --out"),
    ],
)
def test_wrong_requests_get_one_line(arguments, message, finished, capsys):
    assert report(*(finished if argument == "RUN" else argument for argument in arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_configuration_that_cannot_be_read(run, capsys):
    for text in ("model: [1]", "model: {depht: 3}", "- 1", "a: ["):
        (run / "config.yaml").write_text(text)
        assert report(run) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("bounds", [(0, 1), (0.99, 1.0), (-3e99, 9e99), (5, 5), (0, 0), (1.0, 1.0 + 1e-8), (3, 1e-9)])
def test_ticks_enclose(bounds):
    low, high = sorted(bounds)
    found = charts.ticks(low, high, 4)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    assert len(set(found)) == len(found)


def test_long_runs_make_small_charts():
    rng = np.random.default_rng(0)
    steps = np.arange(100_000.0)
    values = rng.normal(size=100_000)
    values[5000:8000] = np.nan
    thin_steps, thin_values = charts.thinned(steps, values)
    assert len(thin_steps) == len(thin_values) <= 300
    assert np.isnan(thin_values).any()
    np.testing.assert_allclose(np.nanmean(thin_values), np.nanmean(values), atol=0.01)
    never = history.Series(steps, np.full(100_000, np.nan))
    measured = history.History(steps, {"loss": history.Series(steps, values), "never": never}, 0)
    assert len(charts.card(charts.KNOWN[0], measured)) < 10_000
    assert [chart.title for chart in charts.charts(measured)] == ["loss"]


def test_a_score_leaves_the_loss_of_its_step(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 1, "top1": 50.0}\n', encoding="utf-8")
    measured = history.read(tmp_path / "m.jsonl")
    assert measured.steps.tolist() == [1]
    assert (measured.last("loss"), measured.last("top1")) == (0.5, 50.0)


def test_one_measurement_is_a_dot_and_rare_ones_are_a_line(tmp_path):
    entries: list[dict[str, float]] = [{"step": 1, "often": 1, "rare": 1}, {"step": 2, "often": 2}]
    entries += [{"step": 3, "often": 3, "rare": 3, "loss": 0.5}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    measured = history.read(tmp_path / "m.jsonl")
    drawn = {chart.title: charts.card(chart, measured) for chart in charts.charts(measured)}
    assert "<circle" in drawn["loss"]
    assert "<circle" not in drawn["rare"]
    assert drawn["rare"].count("L") == 1


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_pages_in_a_browser(run, data, tmp_path):
    long = "a-name-without-any-place-to-break-it" * 8
    assert report(run, "--data", data, "--out", tmp_path / "report.html") == 0
    assert cli.run(["visualize", str(run), str(data), "--out", str(tmp_path / "out"), "--limit", "2"]) == 0
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "report.html", tmp_path / "out" / "index.html")]
    assert "<h1>" in texts[0]
    texts = [text.replace("<h1>", f"<h1>{long} ", 1) for text in texts]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).mkdir()
        found, console = browser.measure(text, (320, 375, 390, 1280), tmp_path / str(number))
        assert console == []
        assert [entry["width"] for entry in found] == [320, 375, 390, 1280]
        for entry in found:
            assert entry["overflow"] == 0
            assert entry["images"] > 5
            assert entry["broken"] == 0


@pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")
def test_the_browser_would_notice(tmp_path):
    wide = '<div style="width:900px">x</div><script>alert(1)</script><img src="data:image/png;base64,AAAA">'
    (found,), console = browser.measure(page.page("wide", [wide]), (390,), tmp_path)
    assert found["overflow"] > 400
    assert found["broken"] == 1
    assert "Content Security Policy" in console[0]


def test_text_is_escaped_wherever_it_goes():
    made = [page.paragraph(ODD_NAME), page.table((ODD_NAME,), [(ODD_NAME,)]), page.numbers({ODD_NAME: ODD_NAME})]
    made += [page.section(ODD_NAME), page.card(ODD_NAME), *page.warnings([ODD_NAME])]
    elements = pages.assert_self_contained(page.page(ODD_NAME, made))
    assert elements.text.count(ODD_NAME) >= 10
