"""Greys and colours of 16 bits: scaled by what the file says, else by a setting that goes along with the encoder."""

from __future__ import annotations

import importlib
import io
import json
import struct
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
from onnx_models import CONFIG, weights
from PIL import Image

from pcae.cli import main as cli
from pcae_core import ConfigError, FinetuneConfig
from pcae_core.config import DataConfig, PretrainConfig
from pcae_core.config.data import Reading
from pcae_core.data import greys, images, open_source
from pcae_core.errors import ImageError
from pcae_core.storage.pretrained import EncoderInfo, save
from pcae_core.training.finetune import with_model
from pcae_onnx import export
from pcae_onnx.session import InferenceSession

TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits
EXPECTED = np.round(TWELVE / 4095 * 255).astype(np.uint8)


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", **options)
    return file.getvalue()


def packed_tiff(values: np.ndarray) -> bytes:
    """12 bits a sample, three bytes for two of them."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    joined = (pairs[:, 0] << 12) | pairs[:, 1]
    pixels = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    entries = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag > 270 else 3, 1, value) for tag, value in entries.items())
    return (
        b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)
    )


def png(values: np.ndarray, significant: int | None = None) -> bytes:
    """With the chunk sBIT, where wanted, before the pixels."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    data = file.getvalue()
    if significant is None:
        return data
    body = b"sBIT" + bytes([significant] * (1 if values.ndim == 2 else 3))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def pgm(values: np.ndarray, largest: int) -> bytes:
    return b"P5\n%d %d\n%d\n" % (values.shape[1], values.shape[0], largest) + values.astype(">u2").tobytes()


def read(data: bytes, grey_bits: int | None = None) -> np.ndarray:
    return np.asarray(images.read(io.BytesIO(data), "x", 1, grey_bits=grey_bits))


@pytest.mark.parametrize(
    "data",
    [
        packed_tiff(TWELVE),
        tiff(TWELVE, tiffinfo={281: 4095}),
        png(TWELVE, 12),
        pgm(TWELVE, 4095),
    ],
    ids=["12 bits a sample", "largest value", "significant bits", "pgm"],
)
@pytest.mark.parametrize("grey_bits", [None, 14])
def test_files_that_say_what_they_hold_are_believed(data, grey_bits):
    np.testing.assert_allclose(read(data, grey_bits), EXPECTED, atol=1)
    assert len(np.unique(read(data))) == 256


@pytest.mark.parametrize("data", [tiff(TWELVE), png(TWELVE), pgm(TWELVE, 65535)], ids=["tiff", "png", "pgm"])
def test_other_files_are_scaled_by_the_setting(data):
    assert np.array_equal(read(data, 12), EXPECTED)
    assert read(data).max() == 16
    with pytest.raises(ImageError, match="a grey of 4095 is more than grey_bits 11 hold"):
        read(data, 11)


def test_values_that_a_png_has_scaled_up_are_left_alone():
    """As the format asks for: significant bits are the upper ones."""
    for scaled in (TWELVE << 4, np.round(TWELVE / 4095 * 65535).astype(np.uint16), (TWELVE << 4) | (TWELVE >> 8)):
        np.testing.assert_allclose(read(png(scaled, 12)), EXPECTED, atol=1)
        dark = scaled[:8]  # the first eighth of the range
        np.testing.assert_allclose(read(png(dark, 12)), EXPECTED[:8], atol=1)


def test_largest_values_that_are_mere_statistics_are_not_believed():
    for largest in (3000, 1023):
        assert np.array_equal(read(tiff(TWELVE, tiffinfo={281: largest}), 12), EXPECTED)


@pytest.fixture(params=["folder", "hugging face"])
def source_of(request, tmp_path):
    """Opens a source of these files."""

    def make(files: dict[str, bytes], reading: Reading):
        folder = tmp_path / "data"
        if request.param == "folder":
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
        else:
            datasets = importlib.import_module("datasets")
            features = datasets.Features({"image": datasets.Image(decode=False)})
            rows = [{"bytes": data, "path": None} for data in files.values()]
            datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(folder)
        return open_source(folder, 1, reading=reading)

    return make


def test_it_is_said_once_whatever_the_source(source_of, caplog):
    files = {f"{i}.tif": tiff(TWELVE) for i in range(20)}
    source = source_of(files, Reading())
    greys.announce(source)
    (record,) = caplog.records
    assert (
        "16-bit greys are scaled from 16 bits to 8; the brightest of 8 images looked at is only 4095" in record.message
    )
    assert "such as 12, say so with grey_bits" in record.message


def test_one_picture_after_the_other_is_in_memory(source_of):
    """They may be large."""
    source = source_of({f"{i}.png": png(TWELVE) for i in range(8)}, Reading())
    load, loaded, most = source.load, [], 0

    def watched(index):
        nonlocal most
        picture = load(index)
        loaded.append(weakref.ref(picture))
        most = max(most, sum(one() is not None for one in loaded))
        return picture

    source.load = watched
    greys.announce(source)
    assert (len(loaded), most) == (8, 1)


def test_nothing_is_advised_where_the_range_is_used(source_of, caplog):
    source = source_of({"a.tif": tiff(TWELVE), "b.png": png(TWELVE)}, Reading(grey_bits=12))
    greys.announce(source)
    assert [record.message for record in caplog.records] == ["16-bit greys are scaled from 12 bits to 8"]
    assert np.array_equal(np.asarray(source.load(1)), EXPECTED)


def test_dark_colours_are_pointed_out(tmp_path, caplog):
    colours = np.stack([TWELVE] * 3, axis=-1)
    height, width, _ = colours.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "x.png").write_bytes(data)
    greys.announce(open_source(tmp_path, 3))
    assert "16-bit colours are scaled from 16 bits to 8" in caplog.text
    assert "write them anew with 8" in caplog.text


def test_8_bits_are_not_worth_a_word(tmp_path, caplog):
    Image.fromarray(EXPECTED // 20).save(tmp_path / "x.png")
    Image.fromarray(EXPECTED // 20).save(tmp_path / "x.bmp")
    greys.announce(open_source(tmp_path, 1))
    assert caplog.records == []


# The setting goes along with the encoder


def encoder(folder: Path, **loader) -> Path:
    save(folder, EncoderInfo(model=CONFIG.model_copy(update={"num_classes": 0}), loader=DataConfig(**loader)),
         {}, {}, "a test")  # fmt: skip
    return folder


def test_fine_tuning_takes_it_from_the_encoder(tmp_path):
    path = encoder(tmp_path / "encoder", grey_bits=12, max_pixels=10**6)
    taken = with_model(FinetuneConfig(pretrained=path)).loader
    assert (taken.grey_bits, taken.max_pixels) == (12, 10**6)
    own = with_model(FinetuneConfig(pretrained=path, loader=DataConfig(grey_bits=14))).loader
    assert own.grey_bits == 14


def test_an_exported_model_has_it(tmp_path, capsys):
    export.export(CONFIG, DataConfig(grey_bits=12), weights(), tmp_path / "model", export.Options())
    session = InferenceSession(tmp_path / "model")
    assert session.info.preprocessing.grey_bits == 12
    scaled = session.preprocess([Image.fromarray(EXPECTED)])
    assert np.array_equal(session.preprocess([Image.fromarray(TWELVE)]), scaled)
    for name, data in (("deep.png", png(TWELVE)), ("plain.png", png(EXPECTED)), ("shifted.png", png(TWELVE << 2))):
        (tmp_path / name).write_bytes(data)

    def best(name: str, *flags: str) -> float:
        assert cli.run(["predict", str(tmp_path / "model"), str(tmp_path / name), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out)[0]["classes"][0]["probability"]

    assert best("deep.png") == best("plain.png")
    assert best("shifted.png", "--grey-bits", "14") == pytest.approx(best("plain.png"), abs=2e-3)
    assert best("shifted.png", "--grey-bits", "16") != pytest.approx(best("plain.png"), abs=2e-3)


def test_settings_of_before_are_read_as_they_were(tmp_path):
    values = PretrainConfig().to_dict()
    assert values.pop("max_corrupt") == 0.01
    assert [values["loader"].pop(name) for name in ("max_pixels", "grey_bits")] == [None, None]
    assert PretrainConfig.from_dict(values) == PretrainConfig()
    with pytest.raises(ConfigError, match="grey_bits: Input should be less than or equal to 16"):
        Reading(grey_bits=17).over(DataConfig())
