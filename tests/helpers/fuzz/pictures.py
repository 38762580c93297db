"""Image files: every format and mode, cut, flipped, announcing what they are not, called what they are not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.kind import Kind, choose
from fuzz.mutation import NUMBERS, mutated
from pcae_core.data import images, open_source
from pcae_core.data.sources.image_folder import EXTENSIONS
from pcae_core.data.transforms import resize_center_crop

_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr"),
    "PPM": ("1", "L", "RGB", "I;16", "F"),
}
_SIZES = (
    (0, 0),
    (0, 9),
    (1, 1),
    (1_000, 1_000),
    (1_001, 1_000),
    (3_000, 1_000),
    (1, 65_535),
    (65_535, 1),
)
_LIMIT_PIXELS = 1_000_000
_LARGEST = (1_000, 1_000)


def sample(kind: str, mode: str, rng: np.random.Generator, **options: object) -> bytes:
    """A good file of noise."""
    image = Image.fromarray(rng.integers(0, 256, (13, 17, 3), dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (13, 17), dtype=np.uint16))
    elif mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    else:
        image = image.convert("L").convert(mode) if mode in ("I", "F", "LA", "1") else image.convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, packed: bytes, *chunks: bytes, interlaced: bool = False
) -> bytes:
    """A file that says this of itself; `packed` are its rows."""
    header = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, depth, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """So many zero bytes, packed."""
    return zlib.compress(bytes(count), 9)


def _whole_bomb(rng: np.random.Generator) -> bytes:
    """A small file that holds every pixel it announces, as many as are allowed."""
    depth, colour, row = choose(rng, ((8, 6, 4), (16, 6, 8), (16, 0, 2), (8, 2, 3), (16, 2, 6), (8, 4, 2), (16, 4, 4)))
    width, height = _LARGEST
    return png(width, height, depth, colour, zeros((1 + width * row) * height))


def _announced(rng: np.random.Generator) -> bytes:
    """A small file that announces another size than it has."""
    width, height = choose(rng, _SIZES)
    what = choose(rng, ("png", "bmp", "gif", "ppm", "webp", "tiff", "jpeg", "interlaced"))
    if what in ("png", "interlaced"):
        depth, colour = choose(rng, (1, 8, 16, 3)), choose(rng, (0, 2, 3, 4, 6, 1))
        return png(width, height, depth, colour, zlib.compress(bytes(1000)), interlaced=what == "interlaced")
    if what == "ppm":
        return b"%s\n%d %d\n%d\n" % (
            choose(rng, (b"P6", b"P5", b"P4", b"P3", b"P2", b"P1", b"Pf", b"P7", b"Py")),
            width,
            height,
            choose(rng, NUMBERS),
        ) + bytes(50)
    data = bytearray(sample(what.upper(), "RGB", rng))
    place, form = {"bmp": (18, "<ii"), "gif": (6, "<HH"), "webp": (26, "<HH"), "tiff": (0, ""), "jpeg": (0, "")}[what]
    if what == "tiff":
        for number, value in ((0x0100, width), (0x0101, height)):
            at = data.find(struct.pack("<HH", number, 4))
            at = data.find(struct.pack("<HH", number, 3)) if at < 0 else at
            data[at : at + 12] = struct.pack("<HHII", number, 4, 1, value % 2**32)
        return bytes(data)
    if what == "jpeg":
        at = data.find(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height % 2**16, width % 2**16)
        return bytes(data)
    bits = 16 if form == "<HH" else 31
    data[place : place + struct.calcsize(form)] = struct.pack(form, width % 2**bits, height % 2**bits)
    return bytes(data)


def _animated(rng: np.random.Generator) -> bytes:
    frames = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(4)]
    file = io.BytesIO()
    frames[0].save(file, choose(rng, ("GIF", "WEBP", "PNG", "TIFF")), save_all=True, append_images=frames[1:])
    return file.getvalue()


def _noted(rng: np.random.Generator) -> bytes:
    """With EXIF data: turned, or with numbers that make no sense; or with texts and profiles that unpack to much."""
    if rng.random() < 0.7:
        exif = Image.Exif()
        exif[0x0112] = choose(rng, (1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535))
        exif[0x010E] = "x" * int(rng.integers(1, 5000))
        if rng.random() < 0.5:  # Pillow itself refuses to write these into a TIFF
            return sample(choose(rng, ("JPEG", "PNG", "WEBP")), "RGB", rng, exif=mutated(rng, exif.tobytes())[:65_000])
        return sample(choose(rng, ("JPEG", "PNG", "WEBP", "TIFF")), "RGB", rng, exif=exif.tobytes())
    packed = zeros(2_000_000)  # Pillow itself allows one
    note = choose(
        rng,
        (
            chunk(b"zTXt", b"a\0\0" + packed),
            chunk(b"iTXt", b"a\0\1\0\0\0" + packed),
            chunk(b"iCCP", b"a\0\0" + packed),
            chunk(b"eXIf", rng.bytes(200)),
            chunk(b"acTL", rng.bytes(8)),
            chunk(b"tRNS", rng.bytes(300)),
            chunk(b"PLTE", rng.bytes(7)),
        ),
    )
    return png(1, 1, 8, choose(rng, (2, 3)), zlib.compress(bytes(4)), note)


def hostile(rng: np.random.Generator) -> tuple[bytes, str]:
    """A wrong file, or one that is right and rare."""
    what = choose(
        rng,
        ("bytes",) * 12
        + ("mode",) * 3
        + ("announced",) * 3
        + ("animated", "noted", "animated bytes", "noted bytes", "junk"),
    )
    if rng.random() < 0.003:
        return _whole_bomb(rng), "whole bomb"
    if what in ("bytes", "mode"):
        kind = choose(rng, list(_MODES))
        mode = choose(rng, _MODES[kind])
        data = sample(kind, mode, rng)
        return (mutated(rng, data) if what == "bytes" else data), f"{what} {kind} {mode}"
    if what == "announced":
        return _announced(rng), what
    if what == "junk":
        return choose(
            rng,
            (
                b"",
                b"\0" * 1000,
                rng.bytes(500),
                b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            ),
        ), what
    data = _animated(rng) if "animated" in what else _noted(rng)
    return (mutated(rng, data) if "bytes" in what else data), what


class Pictures(Kind):
    def __init__(self, samples: Path) -> None:
        super().__init__(samples)
        Image.MAX_IMAGE_PIXELS = _LIMIT_PIXELS
        images._STRIP_PIXELS = _LIMIT_PIXELS // 16

    def good(self, folder: Path) -> None:
        (folder / "a.png").write_bytes(sample("PNG", "RGB", np.random.default_rng(0)))

    def write(self, rng: np.random.Generator, folder: Path) -> str:
        data, what = hostile(rng)
        (folder / f"a{choose(rng, sorted(EXTENSIONS))}").write_bytes(data)
        return what

    def read(self, folder: Path) -> None:
        for in_chans in (1, 3):
            source = open_source(folder, in_chans)
            assert source.fingerprint
            image = source.load(0)
            assert image.mode == {1: "L", 3: "RGB"}[in_chans]
            assert resize_center_crop(image, 16).dtype == np.uint8
