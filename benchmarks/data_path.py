"""Images per second of the training data path against a torch DataLoader that does the same Pillow work.

    python benchmarks/data_path.py [--workers 1 2] [--batch 32] [--batches 24]

JPEG files of 500 x 375 pixels, made here and read again and again as a set of ImageNet's size, are cut, resized to 224
and flipped by the same functions in the same number of processes; the DataLoader stacks them with PyTorch's own
collate. Every batch is read once. A round starts each loader in a new process, leaves out its first batches and ends
it: nothing loads in the background of another, and luck with addresses in memory, worth up to 8% of a process's speed
and inherited by those that it forks, is drawn anew. Also: one image after the other in this process, decoded alone and
with crop and resizing, which is a core's own rate.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from interleave import Spread, interleaved, parser, rate, ratio, report, rounds
from PIL import Image

from pcae_core import PretrainConfig, randomness
from pcae_core.config import DataConfig
from pcae_core.data import TrainLoader
from pcae_core.data.sources.image_folder import ImageFolder
from pcae_core.data.transforms import TrainingPipeline, training_pipeline
from pcae_core.randomness import Purpose

FILES, IMAGES, SIZE, LEFT_OUT = 256, 1_281_167, (500, 375), 4


class Images(ImageFolder):
    """As many as ImageNet has: Grain's shuffle takes 5 us an image there, but 160 us in a set of 256."""

    def __len__(self) -> int:
        return IMAGES

    def load(self, index: int) -> Image.Image:
        return super().load(index % FILES)


def write_images(folder: Path) -> None:
    """Noise at several scales, about as hard to decode as photographs are: 100 to 150 KB a file."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        layers = [_noise(rng, scale) for scale in (4, 16, 64)]
        Image.fromarray(np.mean(layers, axis=0).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=92)


def _noise(rng: np.random.Generator, scale: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (SIZE[1] // scale + 1, SIZE[0] // scale + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC), dtype=np.float64)


class Dataset(torch.utils.data.Dataset):
    """The same work on the same files."""

    def __init__(self, source: ImageFolder, transform: TrainingPipeline, length: int) -> None:
        self.source, self.transform, self.length = source, transform, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = randomness.generator(0, Purpose.AUGMENT, 0, index)
        return torch.from_numpy(np.ascontiguousarray(self.transform(self.source.load(index), rng)))


def seconds_of(batches: Iterator[np.ndarray], count: int) -> float:
    """Seconds of `count` batches after those left out."""
    for _ in range(LEFT_OUT):
        next(batches).max()
    begin = time.perf_counter()
    for _ in range(count):
        next(batches).max()
    return time.perf_counter() - begin


def ours(source: ImageFolder, config: PretrainConfig, count: int) -> float:
    steps = 2 * (LEFT_OUT + count)
    with TrainLoader(source, config, training_pipeline(config), start_step=0, total_steps=steps) as loader:
        return seconds_of((batch.images for batch in loader), count)


def torchs(source: ImageFolder, config: PretrainConfig, count: int) -> float:
    data = Dataset(source, training_pipeline(config), 2 * (LEFT_OUT + count) * config.batch_size)
    loader = torch.utils.data.DataLoader(data, config.batch_size, shuffle=True, num_workers=config.loader.workers)
    return seconds_of((batch.numpy() for batch in loader), count)


def in_new_process(loader: Callable[..., float], *arguments: object) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(loader, *arguments).result()


def compare(source: ImageFolder, workers: int, options: argparse.Namespace) -> None:
    config = PretrainConfig(batch_size=options.batch, loader=DataConfig(workers=workers))
    loaders = {"ours": ours, "torch": torchs}
    timed = {name: partial(in_new_process, loader, source, config, options.batches) for name, loader in loaders.items()}
    times = rounds(timed, options)
    setting = f"{workers} workers, batch {options.batch}"
    report("data path: images/s, ours / DataLoader", setting, ratio(times, "torch", "ours"), options, at_least=1.0)
    report("    ours, images/s", setting, rate(times, "ours", options.batches * options.batch), options)


def one_core(source: ImageFolder, options: argparse.Namespace) -> None:
    """A core's own rate, without any loader."""
    data = Dataset(source, training_pipeline(PretrainConfig()), FILES)
    calls: dict[str, Callable[[], object]] = {
        "decode": lambda: [source.load(index) for index in range(64)],
        "decode, crop and resize": lambda: [data[index] for index in range(64)],
    }
    for name, seconds in interleaved(calls, options).items():
        report(f"    one core: {name}, images/s", "500 x 375 JPEG", Spread.of([64 / s for s in seconds]), options)
    options.cpu_time = False  # the loaders work in processes of their own


def main() -> None:
    made = parser(__doc__, rounds=5, threads=1, batch=32)
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    made.add_argument("--batches", type=int, default=24)
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name))
        source = Images(Path(name), in_chans=3)
        one_core(source, options)
        for workers in options.workers:
            compare(source, workers, options)


if __name__ == "__main__":
    main()
