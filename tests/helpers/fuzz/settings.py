"""YAML configurations: values, tags, anchors, nesting, bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from fuzz.kind import Kind, choose
from fuzz.mutation import arbitrary, edited, mutated
from pcae_core.config import PretrainConfig

_TAGS = (
    "!!python/object/apply:os.mkdir [escaped]", "!!python/object/new:os.mkdir [escaped]", "!!python/name:os.system",
    "!!python/module:os", "!!binary /w==", "!!binary x", "!!timestamp 9999-99-99", "!!int x", "!!float x", "!!set {a}",
    "!!omap [a]", "2001-01-01", "2001-99-99", "1:2:3:4:5:6:7:8:9", "0x" + "f" * 5000, "9" * 5000, "1" + "_" * 5000,
    "0b2",
    ".nan", "1e999",
    "? [a]", "&a *a", "&a [*a]", "*nobody", "<<: *x", "{? [1]: 2}", "|\n  x", '"\\ud800"', "%YAML 9.9", "\t", "---",
    "...",
    "1:" * 2000 + "1", "!<x> 1", "!!str", "!!null x", "!!bool x", "!!merge x", "=", "190:20:30",
)  # fmt: skip


def _laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def _merges(levels: int) -> str:
    """Mappings that merge the one before twice."""
    lines = ["a0: &a0 {x0: 1, y0: 2}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}], x{i}: 1}}" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


class Settings(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        self.text = PretrainConfig(steps=100).to_yaml()

    def good(self, folder: Path) -> None:
        (folder / "run.yaml").write_text(self.text)

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        what = choose(
            rng, ("bytes", "values", "values", "tags", "laughs", "merges", "deep", "arbitrary", "cycle", "file")
        )
        path = folder / "run.yaml"
        if what == "file":
            choose(
                rng,
                (
                    path.mkdir,
                    lambda: path.symlink_to(path),
                    lambda: path.write_bytes(b"\xff\xfe" + self.text.encode("utf-16-le")),
                ),
            )()
            return what
        path.write_bytes(self._text(rng, what))
        return what

    def _text(self, rng: np.random.Generator, what: str) -> bytes:
        if what == "bytes":
            return mutated(rng, self.text.encode())
        if what == "values":
            tree = edited(rng, yaml.safe_load(self.text))
            return yaml.safe_dump(tree, allow_unicode=bool(rng.integers(2))).encode("utf-8", "surrogatepass")
        if what == "arbitrary":
            return yaml.safe_dump(arbitrary(rng)).encode("utf-8", "surrogatepass")
        if what == "tags":
            key = choose(rng, ("seed", "out", "model", "unknown", "steps", "betas"))
            return (
                f"{self.text}{key}: {choose(rng, _TAGS)}\n".encode()
                if rng.random() < 0.7
                else choose(rng, _TAGS).encode()
            )
        if what == "laughs":
            return (self.text + _laughs(int(rng.integers(2, 4)), int(rng.integers(2, 5)))).encode()
        if what == "merges":
            return (self.text + _merges(int(rng.integers(2, 4)))).encode()
        if what == "cycle":
            return choose(rng, (b"&a [*a]", b"&a {b: *a}", self.text.encode() + b"x: &a [*a]\n", b"&a ? *a\n: 1\n"))
        depth = int(choose(rng, (19, 21, 100, 300)))
        stairs = "\n".join(" " * i + "a:" for i in range(depth))
        flat = ("[" * depth, "[" * depth + "]" * depth, "{a: " * depth + "}" * depth, "- " * depth + "x", "? " * depth)
        return choose(rng, (*flat, stairs)).encode()

    def read(self, folder: Path) -> None:
        PretrainConfig.from_yaml(folder / "run.yaml")
