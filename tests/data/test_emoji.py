"""Emoji from two small packages made here, handed over or given by a program in npm's place."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import npm
import numpy as np
import pytest
from PIL import Image
from refusals import refused

from pcae.cli import main as cli
from pcae_core.data import emoji, open_source
from pcae_core.errors import DataError


def record(code: int, category: str, **more) -> dict:
    return {"unified": f"{code:X}", "image": f"{code:x}.png", "category": category, "sort_order": code} | more


VARIANT = {"1F3FB": {"unified": "1F600-1F3FB", "image": "1f600-1f3fb.png"}}
RECORDS = [record(0x1F700 + i, category) for i, category in enumerate(10 * list(emoji.CLASS_NAMES))]
RECORDS += [
    record(0x1F900, "Flags"),  # shows what the first flag shows
    record(0x1F3FB, "Component"),
    record(0x1F600, "People & Body", skin_variations=VARIANT),
]


def picture(seed: int) -> bytes:
    """A PNG file, transparent at its left."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    values[:, :2, 3] = 0
    Image.fromarray(values).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def drawn(vendor: str) -> dict[str, bytes]:
    """The pictures of a package by code point."""
    pictures = {item["image"]: picture(index) for index, item in enumerate(RECORDS)}
    if vendor == "google":
        pictures["1f900.png"] = pictures["1f702.png"]
    return pictures | {"1f600-1f3fb.png": picture(1000)}


def save_package(path: Path, vendor: str) -> Path:
    files = {f"package/img/{vendor}/64/{name}": content for name, content in drawn(vendor).items()}
    files |= {
        "package/emoji.json": json.dumps(RECORDS[::-1]).encode(),
        f"package/img/{vendor}/64/../../../../escaped.png": picture(0),
        "/escaped.png": picture(0),
        f"package/img/{vendor}/sheets/64.png": picture(0),
    }
    link = f"package/img/{vendor}/64/1f703.png"  # in place of the picture before it
    return npm.save_package(path, files, link)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Both packages' files, which npm delivers unless `PACKAGES` says otherwise."""
    folder = npm.install(tmp_path, monkeypatch)
    files = [
        save_package(folder / f"emoji-datasource-{vendor}-{emoji.VERSION}.tgz", vendor) for vendor in emoji.CHECKSUMS
    ]
    checksums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    monkeypatch.setattr(emoji, "CHECKSUMS", dict(zip(emoji.CHECKSUMS, checksums, strict=True)))
    return files


def written(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_pictures_are_sorted_into_splits_and_categories(tmp_path, packages):
    emoji.fetch(tmp_path / "deep" / "out", [path.rename(path.with_suffix(".bin")) for path in packages[::-1]])
    files = written(tmp_path / "deep" / "out")
    attribution = files.pop("ATTRIBUTION.txt").decode()
    assert "Apache License" in attribution
    assert "CC-BY 4.0" in attribution
    expected = {}
    for item in RECORDS[:-3] + RECORDS[-1:]:
        folder = f"{emoji.split_of(item['unified'])}/{emoji.CLASS_NAMES[item['category']]}"
        for vendor in emoji.CHECKSUMS:
            expected[f"{folder}/{item['unified'].lower()}_{vendor}.png"] = drawn(vendor)[item["image"]]
    assert files == expected
    assert not list(tmp_path.glob("**/escaped.png"))
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["out"]


def test_it_is_a_data_set_with_white_behind_the_emoji(tmp_path, packages):
    emoji.fetch(tmp_path / "out", packages)
    for split in ("train", "test"):
        source = open_source(tmp_path / "out", 3, split)
        assert set(source.class_names) <= set(emoji.CLASS_NAMES.values())
        assert (np.asarray(source.load(0))[:, :2] == 255).all()
        with Image.open(source.path / source.name(0)) as image:
            assert image.mode == "RGBA"


def test_splits_follow_from_the_code_points_alone():
    splits = [emoji.split_of(f"{code:X}") for code in range(0x1F300, 0x1F300 + 2000)]
    shares = [splits.count(name) / len(splits) for name in ("train", "val", "test")]
    assert np.allclose(shares, (0.7, 0.1, 0.2), atol=0.03)
    assert [emoji.split_of(code) for code in ("1F600", "1F1E9-1F1EA", "2708-FE0F")] == ["train", "test", "train"]


def test_what_is_there_is_left_alone_and_nothing_is_removed(tmp_path, packages, monkeypatch):
    emoji.fetch(tmp_path / "out", packages)
    monkeypatch.setattr(emoji, "CONTENT_CHECKSUM", emoji._content_checksum(tmp_path / "out"))
    for path in packages:
        path.unlink()
    emoji.fetch(tmp_path / "out")
    path = next((tmp_path / "out").glob("train/*/*.png"))
    path.write_bytes(b"damaged")
    before = written(tmp_path / "out")
    with pytest.raises(DataError, match="holds something else, or the emoji are damaged"):
        emoji.fetch(tmp_path / "out")
    assert written(tmp_path / "out") == before


def test_wrong_files_are_named(tmp_path, packages):
    with pytest.raises(DataError, match=r"emoji-datasource-twitter@.* is missing; hand over both"):
        emoji.fetch(tmp_path / "out", packages[:1])
    with pytest.raises(DataError, match=r"cannot read .*nothing"):
        emoji.fetch(tmp_path / "out", [tmp_path / "nothing"])
    packages[0].write_bytes(packages[0].read_bytes()[:-20])
    with pytest.raises(DataError, match=r"google.*\.tgz is neither of .*, or it is damaged"):
        emoji.fetch(tmp_path / "out", packages)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path, packages):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DataError, match="cannot write the emoji"):
        emoji.fetch(tmp_path / "file" / "out", packages)
    with pytest.raises(DataError, match="holds something else"):
        emoji.fetch(tmp_path / "file", packages)


def test_npm_fetches_the_packages(tmp_path, packages):
    (tmp_path / "out").mkdir()
    assert cli.run(["data", "emoji", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "ATTRIBUTION.txt").is_file()
    assert (tmp_path / "calls").read_text().split()[-2:] == emoji._specs()


@pytest.mark.parametrize(("how", "reason"), npm.FAILURES)
def test_when_npm_fails_the_message_says_what_to_do(tmp_path, packages, monkeypatch, capsys, how, reason):
    npm.fail(tmp_path, monkeypatch, how)
    message = refused(capsys, "data", "emoji", tmp_path / "out")
    assert f"cannot fetch the emoji ({reason}); run on another machine: npm pack emoji-datasource-google@" in message
    assert not (tmp_path / "out").exists()
