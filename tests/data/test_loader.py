"""Batches for training and evaluation, and the processes that load them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import patience
import pytest
from data_files import GREYS, MODEL, WHOLE, one_line, rng, save_image, save_npz

import pcae_core
from pcae_core.config import DataConfig, PretrainConfig
from pcae_core.data import CorruptLog, TrainLoader, eval_batches, open_source
from pcae_core.data.transforms import resize_center_crop, training_pipeline
from pcae_core.errors import ConfigError, DataError, TrainingError


def settings(workers: int = 0, **values) -> PretrainConfig:
    values = {"model": MODEL, "loader": DataConfig(workers=workers), "batch_size": 4, "seed": 5} | values
    return PretrainConfig(**values)


def open_loader(source, config, **options) -> TrainLoader:
    return TrainLoader(source, config, training_pipeline(config), **options)


def batches(source, config, start_step=0, total_steps=7, **options):
    with open_loader(source, config, start_step=start_step, total_steps=total_steps, **options) as loader:
        return list(loader)


def same(first, second) -> bool:
    names = ("images", "sample_ids", "corrupt_ids", "corrupt_reasons")
    return len(first) == len(second) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) and getattr(a, name).dtype == getattr(b, name).dtype
        for a, b in zip(first, second, strict=True)
        for name in names
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images, two of which cannot be read."""
    path = tmp_path_factory.mktemp("folder")
    for index, values in enumerate(GREYS):
        save_image(path / f"{index}.png", values)
    for index in (3, 9):
        (path / f"{index}.png").write_bytes(b"damaged")
    return open_source(path, 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return open_source(save_npz(tmp_path_factory.mktemp("archive") / "d.npz"), 1)


def test_every_epoch_is_another_permutation(archive):
    result = batches(archive, settings(), total_steps=10)
    assert [batch.images.shape for batch in result] == [(4, 1, 8, 8)] * 10
    assert all(batch.images.dtype == np.uint8 and batch.sample_ids.dtype == np.int64 for batch in result)
    epochs = np.concatenate([batch.sample_ids for batch in result]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # A version of Grain that shuffles otherwise would continue old runs wrongly.
    assert epochs[:2].tolist() == [[7, 4, 9, 3, 1, 2, 5, 6, 0, 8], [5, 6, 7, 0, 8, 3, 9, 2, 4, 1]]
    other = batches(archive, settings(seed=6), total_steps=10)
    orders = np.concatenate([batch.sample_ids for batch in other]).reshape(4, 10)
    assert not {tuple(epoch) for epoch in epochs} & {tuple(epoch) for epoch in orders}


def test_augmentation_is_drawn_by_epoch_and_sample(archive):
    plain = settings(loader=WHOLE.model_copy(update={"workers": 0}))
    for batch in batches(archive, plain, total_steps=3):
        for image, index in zip(batch.images, batch.sample_ids, strict=True):
            assert np.array_equal(image, training_pipeline(plain)(archive.load(index), rng()))
    result = batches(archive, settings(), total_steps=5)
    crops = [[b.images[b.sample_ids == index] for b in result if index in b.sample_ids] for index in range(10)]
    assert all(not np.array_equal(np.concatenate(c)[0], np.concatenate(c)[1]) for c in crops)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_and_workers_change_nothing(folder, workers):
    whole = batches(folder, settings(), total_steps=7)
    assert len(whole) == 7
    assert same(batches(folder, settings(workers), start_step=3), whole[3:])
    assert batches(folder, settings(workers), start_step=7) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_the_same_global_batch(folder, workers):
    whole = batches(folder, settings(), total_steps=7)
    ranks = [batches(folder, settings(workers), start_step=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, parts in zip(whole[2:], zip(*ranks, strict=True), strict=True):
        for name in ("images", "sample_ids", "corrupt_ids", "corrupt_reasons"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(batch, name))


def test_unreadable_images_are_replaced_by_the_next(folder):
    plain = settings(batch_size=10, loader=WHOLE.model_copy(update={"workers": 0}))
    for batch in batches(folder, plain):
        assert sorted(batch.corrupt_ids) == [3, 9]
        assert sorted(batch.sample_ids) == [0, 0, 1, 2, 4, 4, 5, 6, 7, 8]
        for image, index in zip(batch.images, batch.sample_ids, strict=True):
            assert np.array_equal(image, training_pipeline(plain)(folder.load(index), rng()))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_one_image_are_the_same_order(archive, workers):
    whole = batches(archive, settings(), total_steps=6)
    single = batches(archive, settings(workers, batch_size=1), start_step=3, total_steps=24)
    assert [batch.images.shape for batch in single] == [(1, 1, 8, 8)] * 21
    shared = [batches(archive, settings(workers), total_steps=6, rank=rank, world_size=4) for rank in range(4)]
    for name in ("images", "sample_ids"):
        expected = np.concatenate([getattr(batch, name) for batch in whole])
        assert np.array_equal(np.concatenate([getattr(batch, name) for batch in single]), expected[3:])
        turns = [getattr(batch, name) for step in zip(*shared, strict=True) for batch in step]
        assert np.array_equal(np.concatenate(turns), expected)


def test_fewer_images_than_a_batch(tmp_path):
    source = open_source(save_npz(tmp_path / "d.npz", images=GREYS[:3]), 1)
    ids = np.concatenate([batch.sample_ids for batch in batches(source, settings(batch_size=12), total_steps=2)])
    assert all(sorted(epoch) == [0, 1, 2] for epoch in ids.reshape(8, 3))
    single = open_source(save_npz(tmp_path / "e.npz", images=GREYS[:1]), 1)
    assert batches(single, settings(), total_steps=1)[0].sample_ids.tolist() == [0] * 4


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_images_in_a_row(tmp_path, workers):
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"21 images in a row .*\.png") as error:
        batches(open_source(tmp_path, 1), settings(workers))
    one_line(error)


def test_processes_that_do_not_fit(archive):
    with pytest.raises(ConfigError, match="batch_size 4 is not divisible by 3 processes"):
        open_loader(archive, settings(), start_step=0, total_steps=1, world_size=3)
    with pytest.raises(ConfigError, match="gives each of 2 processes 6 images, which accumulation 4 does not divide"):
        open_loader(archive, settings(batch_size=12, accumulation=4), start_step=0, total_steps=1, world_size=2)
    with pytest.raises(ConfigError, match="rank 2 must be from 0 to 1"):
        open_loader(archive, settings(), start_step=0, total_steps=1, rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_closed_loader_is_at_its_end(archive, workers):
    loader = open_loader(archive, settings(workers), start_step=0, total_steps=9)
    with loader:
        next(loader)
        assert len(multiprocessing.active_children()) == workers
    assert list(loader) == []
    assert multiprocessing.active_children() == []
    loader.close()


def test_a_forgotten_loader_ends_its_processes(archive):
    loader = open_loader(archive, settings(1), start_step=0, total_steps=9)
    next(loader)
    assert len(multiprocessing.active_children()) == 1
    del loader
    assert multiprocessing.active_children() == []


def test_a_killed_loading_process_is_an_error(archive):
    with open_loader(archive, settings(2), start_step=0, total_steps=10**6) as loader:
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"a loading process died \(exit code -9\)"):
            for _ in loader:
                pass
    assert multiprocessing.active_children() == []


# The end of the program

SCRIPT = """
import sys
from pcae_core.config import DataConfig, ModelConfig, PretrainConfig
from pcae_core.data import TrainLoader, open_source
from pcae_core.data.transforms import training_pipeline
from pcae_core.training.signals import StopRequest

if __name__ == "__main__":
    path, end = sys.argv[1:]
    model = ModelConfig(image_size=64, patch_size=32, in_chans=1)
    config = PretrainConfig(model=model, loader=DataConfig(workers=2), batch_size=4)
    steps = 4 if end == "all" else 10**6
    loader = TrainLoader(open_source(path, 1), config, training_pipeline(config), start_step=0, total_steps=steps)
    with StopRequest() as stop, loader:  # as the loop of a run does
        for step, batch in enumerate(loader):
            if end == "break" or stop.received:
                break
            if step == 1:
                print("ready", flush=True)
"""


@pytest.fixture
def start_script(tmp_path):
    """Starts the script, and leaves none of its processes behind."""
    started = []

    def start(end: str) -> subprocess.Popen:
        (tmp_path / "script.py").write_text(SCRIPT)
        save_npz(tmp_path / "d.npz")
        command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "d.npz"), end]
        environment = os.environ | {"PYTHONPATH": str(Path(pcae_core.__file__).parents[1])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["all", "break"])
def test_nothing_is_printed_at_the_end(start_script, end):
    process = start_script(end)
    output, errors = process.communicate(timeout=patience.SECONDS)
    assert (errors, process.returncode) == (b"", 0)
    assert (output == b"ready\n") == (end == "all")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_printed_when_a_signal_ends_all_processes(start_script, number):
    process = start_script("never")
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=patience.SECONDS)
    assert (output, errors, process.returncode) == (b"", b"", 0)


def test_loading_processes_do_not_outlive_a_killed_run(start_script):
    process = start_script("never")
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=patience.SECONDS)  # returns when nobody holds the pipes any more
    patience.wait_for(lambda: not running_in_group(process.pid))


def running_in_group(group: int) -> list[str]:
    """Processes of a process group that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stats.append(path.read_text())
        except OSError:  # it has just ended
            continue
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return [
        stat for stat, (state, _, pgrp, *_) in zip(stats, fields, strict=True) if int(pgrp) == group and state != "Z"
    ]


# Evaluation batches and damaged images


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_are_in_order(archive, workers):
    result = list(eval_batches(archive, MODEL, DataConfig(workers=workers), 4))
    assert [batch.ids.tolist() for batch in result] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    expected = [resize_center_crop(archive.load(index), 8) for index in range(10)]
    assert np.array_equal(np.concatenate([batch.images for batch in result]), np.stack(expected))


def test_evaluation_leaves_unreadable_images_out(folder):
    log = CorruptLog(folder, 0.2)
    result = list(eval_batches(folder, MODEL, DataConfig(), 2, log))
    assert [batch.ids.tolist() for batch in result] == [[0, 1], [2], [4, 5], [6, 7], [8]]
    for batch in result:
        expected = [resize_center_crop(folder.load(index), 8) for index in batch.ids]
        assert np.array_equal(batch.images, np.stack(expected))
    (line,) = log.summary()
    assert "2 of 10 images" in line
    assert "left out: 3.png (cannot identify its format; known: JPEG" in line
    with pytest.raises(TrainingError, match=r"1 of 10 images .* \(10\.0%\) cannot be read, more than max_corrupt 0.01"):
        list(eval_batches(folder, MODEL, DataConfig(), 2, CorruptLog(folder, 0.01)))


def test_evaluation_of_nothing_readable(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}.png").touch()
    source = open_source(tmp_path, 1)
    with pytest.raises(DataError, match="none of the 5 images") as error:
        list(eval_batches(source, MODEL, DataConfig(), 2, CorruptLog(source, 1.0)))
    one_line(error)


def test_corrupt_log_names_each_image_once(caplog, tmp_path):
    for index in range(300):
        (tmp_path / f"{index:03}.png").touch()
    log = CorruptLog(open_source(tmp_path, 1), 0.01)
    assert log.summary() == []
    assert log.add({5: "it is truncated", 7: "too large"}) == ["005.png", "007.png"]
    assert log.add({7: "too large"}) == []
    assert log.add({9: "gone"}) == ["009.png"]
    assert log.count == 3  # of 300: not more than 1 %
    assert [record.name for record in caplog.records] == ["pcae", "pcae"]
    assert "left out: 005.png (it is truncated), 007.png (too large)" in caplog.records[0].getMessage()
    with pytest.raises(
        TrainingError,
        match=r"4 of 300 images .* \(1\.3%\) cannot be read, more than max_corrupt 0.01.*005.*009.*011\.png \(gone\)$",
    ) as error:
        log.add({11: "gone"})
    one_line(error)
    with pytest.raises(TrainingError, match=r"019\.png \(gone\), and 5 more$"):
        CorruptLog(open_source(tmp_path, 1), 0.01).add(dict.fromkeys(range(25), "gone"))
