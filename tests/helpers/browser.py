"""Pages in headless Chromium: what overflows, what fails to load, what the console says."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import patience

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
"""What keeps a browser to itself."""
_OPTIONS = [
    *("--headless", "--no-sandbox", *FLAGS, "--enable-logging=stderr"),
    *("--virtual-time-budget=5000", "--hide-scrollbars"),
]

# The page allows no script, so a second page measures it from outside, at every width in one start of the browser.
_MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body>{frames}<pre id="found"></pre><script>
window.onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument;
    return {{
      width: frame.clientWidth,
      overflow: page.documentElement.scrollWidth - frame.clientWidth,
      images: page.images.length,
      broken: [...page.images].filter(image => !image.naturalWidth).length,
      text: page.body.innerText.length,
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


def measure(page: str, widths: tuple[int, ...], folder: Path) -> tuple[list[dict[str, int]], list[str]]:
    """What a page is like at each width, and the lines of the console."""
    frame = '<iframe style="border:0;height:800px;width:{}px" srcdoc="{}"></iframe>'
    frames = "".join(frame.format(width, html.escape(page)) for width in widths)
    outer = folder / "measure.html"
    outer.write_text(_MEASURE.format(frames=frames), encoding="utf-8")
    command = [str(CHROMIUM), *_OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience.SECONDS)
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout)
    return json.loads(html.unescape(found)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
