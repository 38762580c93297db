"""Data sets that Hugging Face's `datasets` wrote: the bytes of their Arrow files, their JSON, entries of any kind."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow
from PIL import Image

from fuzz.kind import Kind, choose
from fuzz.mutation import json_text, mutated
from pcae_core.data import open_source

_PATHS = ("", "/etc/passwd", "/dev/null", "/proc/self/mem", ".", "x\0.png", "x" * 5000, "http://localhost/x.png", "\n")
_FILES = ("../data-00000-of-00001.arrow", "/dev/null", "/etc/passwd", "", ".", "state.json", "x\0y", "x" * 5000)
_FEATURES = (
    {"_type": "Value", "dtype": "large_binary"}, {"_type": "Value", "dtype": "int8"}, {"_type": "ClassLabel"},
    {"_type": "ClassLabel", "names": ["a"]}, {"_type": "ClassLabel", "names_file": "/etc/passwd"}, {"_type": "Image"},
    {"_type": "Image", "decode": False, "mode": "CMYK"}, {"_type": "Audio"}, {"_type": "Video"}, {"_type": "Path"},
    {"_type": "Array2D", "shape": [300, 300], "dtype": "float32"}, {"_type": "config"}, {"_type": "x"}, [], None,
)  # fmt: skip


def _content() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, "PNG")
    return file.getvalue()


CONTENT = _content()


def _save(folder: Path, images: list[dict[str, object] | None], labels: list[int | None]) -> None:
    """As plain columns, since `datasets` looks at images that it writes; the description then makes images of them."""
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": struct, "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).save_to_disk(folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["features"] |= {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    (folder / "dataset_info.json").write_text(json.dumps(info))


class ArrowFolders(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        datasets.disable_progress_bars()
        _save(samples / "it", [{"bytes": CONTENT, "path": None}] * 6, [0, 1] * 3)

    def good(self, folder: Path) -> None:
        shutil.copytree(self.samples / "it", folder / "it")

    def _bytes(self, rng: np.random.Generator, data: bytes) -> bytes:
        while True:
            changed = mutated(rng, data)
            if not _leads_astray(changed):
                return changed

    def _offsets(self, rng: np.random.Generator, data: bytes) -> bytes:
        """With a number changed that tells where an image begins or ends; none leads far beyond the images."""
        offsets = (np.arange(7) * len(CONTENT)).astype("<i4")
        wrong, place, by = offsets.copy(), int(rng.integers(7)), int(rng.integers(1, 2 * len(CONTENT)))
        wrong[place] += choose(rng, (by, -by)) if 0 < place < 6 else by
        wrong = wrong.clip(0, offsets[6] + 8)
        assert data.count(offsets.tobytes()) == 1
        return data.replace(offsets.tobytes(), wrong.tobytes())

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        what = choose(
            rng, ("arrow", "arrow", "offsets", "state.json", "dataset_info.json", "files", "features", "entries")
        )
        if what == "entries":
            _save(folder / "it", [_entry(rng) for _ in range(6)], [choose(rng, (0, 1, None, 5, -1)) for _ in range(6)])
            return what
        self.good(folder)
        it = folder / "it"
        if what in ("arrow", "offsets"):
            (file,) = it.glob("*.arrow")
            change = self._bytes if what == "arrow" else self._offsets
            file.write_bytes(change(rng, file.read_bytes()))
        elif what == "files":
            state = json.loads((it / "state.json").read_text())
            state["_data_files"] = [{"filename": choose(rng, _FILES)} for _ in range(int(rng.integers(0, 3)))]
            (it / "state.json").write_text(json.dumps(state))
        elif what == "features":
            info = json.loads((it / "dataset_info.json").read_text())
            info["features"][choose(rng, ("image", "label", "x"))] = choose(rng, _FEATURES)
            (it / "dataset_info.json").write_text(json.dumps(info))
        else:
            (it / what).write_bytes(json_text(rng, json.loads((it / what).read_text())))
        return what

    def read(self, folder: Path) -> None:
        source = open_source(folder / "it", 3)
        assert source.fingerprint
        assert source.labels is None or len(source.labels) == len(source)
        assert source.class_names is None or all(isinstance(name, str) for name in source.class_names)
        for index in {0, len(source) - 1}:
            source.load(index)


def _leads_astray(data: bytes) -> bool:
    """Whether Arrow opens a file whose numbers contradict each other; such are made by `_offsets` alone, with care."""
    try:
        table = pyarrow.ipc.open_stream(data).read_all()
    except Exception:  # whatever it raises on a damaged file
        return False
    try:
        table.validate(full=True)
    except pyarrow.ArrowInvalid:
        return True
    return False


def _entry(rng: np.random.Generator) -> dict[str, object] | None:
    """A row of the column of images."""
    content, path = choose(rng, (CONTENT, mutated(rng, CONTENT), b"", None)), choose(rng, (*_PATHS, None))
    return None if rng.random() < 0.1 else {"bytes": content, "path": path}
