"""Files and folders are written whole or not at all, and nothing else is left beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pcae_core.storage import atomic


def write_file(path: Path, text: str, problem: BaseException | None = None, shared: bool = False) -> None:
    with atomic.whole_file(path, shared=shared) as place:
        assert place.suffix == path.suffix
        place.write_text(text)
        if problem:
            raise problem


def write_folder(path: Path, text: str, problem: BaseException | None = None, shared: bool = False) -> None:
    with atomic.whole_folder(path, durable=True, shared=shared) as place:
        assert not list(place.iterdir())
        (place / "inner").mkdir()
        (place / "inner" / "a.txt").write_text(text)
        if problem:
            raise problem


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_replaces_the_former_one(shared, tmp_path):
    for text in ("first", "second"):
        write_file(tmp_path / "a.txt", text, shared=shared)
        assert (tmp_path / "a.txt").read_text() == text
    assert listed(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), ValueError(), KeyboardInterrupt()])
def test_what_fails_leaves_what_was_there(problem, shared, tmp_path):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(type(problem)):
        write_file(tmp_path / "a.txt", "after", problem, shared)
    with pytest.raises(type(problem)):
        write_folder(tmp_path / "b", "after", problem, shared)
    assert listed(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


@pytest.mark.parametrize("shared", [False, True])
def test_a_folder_is_whole_and_replaces_no_other(shared, tmp_path):
    write_folder(tmp_path / "a", "first", shared=shared)
    with pytest.raises(OSError, match="not empty"):
        write_folder(tmp_path / "a", "second", shared=shared)
    assert listed(tmp_path) == ["a"]
    assert (tmp_path / "a" / "inner" / "a.txt").read_text() == "first"


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".writing_a.txt").write_text("half")
    (tmp_path / ".writing_a").mkdir()
    (tmp_path / ".writing_a" / "half").mkdir()
    with atomic.whole_file(tmp_path / "a.txt") as place:
        assert not place.exists()
        place.touch()
    write_folder(tmp_path / "a", "new")
    assert listed(tmp_path) == ["a", "a.txt"]
    assert listed(tmp_path / "a") == ["inner"]


def test_writers_that_share_a_name_have_places_of_their_own(tmp_path):
    with atomic.whole_file(tmp_path / "a.txt", shared=True) as one:
        one.write_text("one")
        write_file(tmp_path / "a.txt", "two", shared=True)
        assert one.read_text() == "one"
        assert (tmp_path / "a.txt").read_text() == "two"
    assert (tmp_path / "a.txt").read_text() == "one"


def test_a_durable_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "a").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_folder(tmp_path / "a", "text")
    place = tmp_path / ".writing_a"
    inside = [str(path) for path in (place / "inner", place / "inner" / "a.txt", place)]
    assert sorted(synced) == sorted([*((path, False) for path in inside), (str(tmp_path), True)])
    with atomic.whole_folder(tmp_path / "b") as writing:
        (writing / "a.txt").touch()
    assert len(synced) == 4
