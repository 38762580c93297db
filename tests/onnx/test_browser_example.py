"""The browser example in headless Chromium against ONNX Runtime: the same pixels, hidden states and kept patches."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import threading
from pathlib import Path

import node_packages
import numpy as np
import patience
import pytest
from browser import CHROMIUM, FLAGS
from onnx_models import CLASSES, CONFIG, HEADLESS, exported
from PIL import Image

from pcae_onnx.session import InferenceSession

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
GREY = HEADLESS.model_copy(update={"in_chans": 1})


def chromium() -> str:
    """The browser; skips where there is none."""
    return CHROMIUM or pytest.skip("needs Chromium, which is not installed")


@pytest.fixture(scope="module")
def page_folder(tmp_path_factory):
    """A copy of the example with its packages: those installed beside it, or by npm ci."""
    chromium()
    folder = tmp_path_factory.mktemp("browser") / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "model"))
    node_packages.install(EXAMPLE, folder, "onnxruntime-web")
    return folder


@pytest.fixture(scope="module")
def site(page_folder):
    """The page's address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Nothing: the test's output is for its results."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=page_folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which is not installed")
    path = chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=FLAGS, chromium_sandbox=False, timeout=1000 * patience.SECONDS
        )
        yield browser
        browser.close()


def picture() -> bytes:
    """An RGBA PNG, larger than the model takes and not square."""
    values = np.random.default_rng(0).integers(0, 256, (13, 19, 3), dtype=np.uint8)
    image = Image.fromarray(values).resize((190, 131), Image.Resampling.BICUBIC)
    image.putalpha(Image.fromarray(np.where(np.arange(190) < 30, 0, 255).astype(np.uint8)[None].repeat(131, 0)))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def slide(page, keep: float) -> dict:
    """Move the slider; the result once the page has it."""
    page.locator("#keep").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", keep)
    page.wait_for_selector("[data-state=ready]")
    return page.evaluate("({...pcae.result, values: Array.from(pcae.values)})")


@pytest.mark.parametrize("config", [CONFIG, GREY], ids=["classes", "grey features"])
@pytest.mark.parametrize("opset", [20, 23])
def test_page_computes_what_onnx_runtime_computes(page_folder, site, browser, config, opset):
    names = CLASSES if config.num_classes else None
    exported(page_folder / "model", config, keep=None, opset=opset, class_names=names)
    session = InferenceSession(page_folder / "model", threads=1)
    with browser.new_page(viewport={"width": 360, "height": 740}) as page:
        page.set_default_timeout(1000 * patience.SECONDS)
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(site)
        page.wait_for_selector("[data-state=ready]")
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture()})
        page.locator("#status", has_text="a.png, ").wait_for()
        ours = session.preprocess([Image.open(io.BytesIO(picture()))])
        for keep in (0.3, 0.55, 0.8, 1.0):
            found = slide(page, keep)
            values = np.array(found["values"], np.float32).reshape(ours.shape)
            level = 1 / 255 / min(session.info.preprocessing.std)
            assert abs(values - ours).max() < 1.01 * level
            assert (abs(values - ours) < 1e-4).mean() > 0.99
            expected = session.run(values, keep)
            assert found["keptIds"] == expected.kept_ids[0].tolist()
            np.testing.assert_allclose(found["hidden"], expected.last_hidden_state.ravel(), rtol=0, atol=1e-4)
            if names:
                np.testing.assert_allclose(found["logits"], expected.logits[0], rtol=0, atol=1e-4)
                best = CLASSES[int(expected.logits[0].argmax())]
                assert page.locator("#classes li").first.text_content().startswith(f"{best}: ")
            assert page.locator("#kept").text_content() == f"{len(expected.kept_ids[0])} of 36"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert errors == []


def test_page_says_what_is_wrong(page_folder, site, browser):
    exported(page_folder / "model", keep=0.7)
    with browser.new_page() as page:
        page.set_default_timeout(1000 * patience.SECONDS)
        page.goto(site)
        page.wait_for_selector("[data-state=error]")
        assert "export with --dynamic-keep" in page.locator("#status").text_content()
        exported(page_folder / "model", keep=None)
        page.reload()
        page.wait_for_selector("[data-state=ready]")
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"garbage"})
        page.wait_for_selector("[data-state=error]")
        assert page.locator("#status").text_content() == "a.png is not a picture that this browser can read"
        shutil.rmtree(page_folder / "model")
        page.reload()
        page.wait_for_selector("[data-state=error]")
        assert "export a model first" in page.locator("#status").text_content()


def test_lock_file_names_exact_versions_and_no_host():
    text = (EXAMPLE / "package-lock.json").read_text(encoding="utf-8")
    wanted = json.loads((EXAMPLE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads(text)["packages"]
    assert {f"node_modules/{name}": packages[f"node_modules/{name}"]["version"] for name in wanted} == {
        f"node_modules/{name}": version for name, version in wanted.items()
    }
    assert "http" not in text
