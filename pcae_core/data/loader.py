"""Batches for training and for evaluation.

The order of the training images depends only on the seed. It is cut into batches of one process. Process `rank` takes
batch `step * world_size + rank` at `step`. So a step sees the same images for any number of processes, and a resumed
run sees the same images as an uninterrupted one. Letters: b images of one process, B images of a step, C channels, H =
W.
"""

from __future__ import annotations

import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pcae_core.config import DataConfig, ModelConfig, RunConfig
from pcae_core.data import _grain, worker
from pcae_core.data.corrupt import CorruptLog
from pcae_core.data.images import AnyImage, Pixels
from pcae_core.data.sources.base import Source
from pcae_core.data.transforms import resize_center_crop, stack
from pcae_core.errors import ConfigError, DataError, ImageError, TrainingError
from pcae_core.randomness import Purpose, generator

_MAX_REPLACEMENTS = 20
_THREADS_WITHOUT_WORKERS = 2
_MIN_SHARED_BYTES = 4096  # smaller arrays are sent rather than shared

ImageTransform = Callable[[AnyImage, np.random.Generator], Pixels]
"""Turns an image of `Source.load` into uint8 (C, H, W), with a generator for this image and epoch alone. Must be
picklable."""


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Attributes:
        images: uint8 (b, C, H, W), augmented.
        sample_ids: int64 (b,), numbers of the images in the source.
        corrupt_ids: int64 (c,), numbers of the unreadable images, which were replaced.
        corrupt_reasons: text (c,), reasons why they are unreadable.
    """

    images: NDArray[np.uint8]
    sample_ids: NDArray[np.int64]
    corrupt_ids: NDArray[np.int64]
    corrupt_reasons: NDArray[np.str_]

    @property
    def corrupt(self) -> dict[int, str]:
        """Number of each unreadable image -> reason."""
        return dict(zip(self.corrupt_ids.tolist(), self.corrupt_reasons.tolist(), strict=True))


@dataclass(frozen=True)
class EvalBatch:
    """Images in the order of their source, without unreadable ones.

    Attributes:
        images: uint8 (b, C, H, W), resized, and cropped at the centre.
        ids: int64 (b,), numbers of the images in the source.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.int64]


class TrainLoader:
    """Training batches of one process, from `start_step` to the last step. Iterate over it once.

    Use it in a `with` block, which starts and ends the loading processes. They import the main module again, so a
    script must keep its work below `if __name__ == "__main__":`.
    """

    def __init__(
        self,
        source: Source,
        config: RunConfig,
        transform: ImageTransform,
        *,
        start_step: int,
        total_steps: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the loader; nothing is loaded yet.

        Args:
            transform: transform of each image, such as `training_pipeline(config)`.
            start_step: first step to load for, 0-based.
            total_steps: steps of the whole run.
            rank, world_size: number of this process, and number of all processes of the run.

        Raises:
            ConfigError: as `RunConfig.local_batch_size`, or `rank` is out of range.
        """
        size = config.local_batch_size(world_size)
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} must be from 0 to {world_size - 1}")
        steps = slice(start_step * world_size + rank, total_steps * world_size, world_size)
        self._dataset = _training_dataset(
            _LoadSample(source, transform, config.seed), config.loader.workers, size, steps
        )
        self._iterator: Any = None
        self._finalizer: weakref.finalize[[Any], TrainLoader] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            DataError: too many images in a row cannot be read.
            TrainingError: a loading process died.
        """
        try:
            values = next(self._start())
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # some frames hold an array in shared memory
            reason = _grain.cause_of_death(error)
            if reason is not None:
                raise TrainingError(
                    f"a loading process died ({reason}): read its messages above; check that memory and /dev/shm are "
                    "not full"
                ) from error
            raise
        # Copies, because shared memory must be released before the interpreter ends.
        return Batch(**{name: np.array(value) for name, value in values.items()})

    def close(self) -> None:
        """End the loading processes. The loader cannot be used afterwards."""
        if self._finalizer is not None:
            self._finalizer()
        self._iterator = iter(())

    def _start(self) -> Any:
        if self._iterator is None:
            self._iterator = _grain.iterate(self._dataset)
            self._finalizer = weakref.finalize(self, _grain.close, self._iterator)
            with worker.signals_left_to_the_caller():
                self._iterator.start_prefetch()
        return self._iterator


def _training_dataset(load: _LoadSample, workers: int, batch_size: int, batches: slice) -> Any:
    """Grain's data set of the batches in the slice `batches` of the training order."""
    grain = _grain.import_grain()
    # Grain takes a seed of 32 bits and adds the epoch to it. Neighbouring seeds must not share epochs.
    seed = int(np.random.SeedSequence(load.seed).generate_state(1)[0])
    epochs = max(1, -(-batches.stop * batch_size // len(load.source)))  # Grain cannot count endless batches of one
    order = grain.MapDataset.range(len(load.source)).shuffle(seed=seed).repeat(epochs)
    dataset = order.map_with_index(load).batch(batch_size, batch_fn=_collate)[batches]
    threads = 1 if workers else _THREADS_WITHOUT_WORKERS
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    options = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED_BYTES)
    return grain.experimental.WithOptionsIterDataset(dataset, options).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=worker.exit_with_parent
    )


class _LoadSample:
    """Loads and augments the image at a place of the training order, in a loading process."""

    def __init__(self, source: Source, transform: ImageTransform, seed: int) -> None:
        self.source, self.transform, self.seed = source, transform, seed

    def __call__(self, place: int, sample: int) -> dict[str, Any]:
        image, loaded, corrupt = _load_or_replace(self.source, sample)
        rng = generator(self.seed, Purpose.AUGMENT, major=place // len(self.source), minor=sample)
        return {"images": self.transform(image, rng), "sample_ids": loaded, "corrupt": corrupt}


def _load_or_replace(source: Source, sample: int) -> tuple[AnyImage, int, dict[int, str]]:
    """The image `sample` or the next readable one, its number, and number -> reason of the unreadable images before."""
    corrupt: dict[int, str] = {}
    for step in range(min(len(source), _MAX_REPLACEMENTS + 1)):
        index = (sample + step) % len(source)
        try:
            return source.load(index), index, corrupt
        except ImageError as error:
            corrupt[index] = error.reason
            problem = error
    raise DataError(f"{len(corrupt)} images in a row cannot be read; the last: {problem}")


def _collate(samples: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    corrupt = [pair for sample in samples for pair in sample["corrupt"].items()]
    return {
        "images": stack([sample["images"] for sample in samples]),
        "sample_ids": np.array([sample["sample_ids"] for sample in samples], dtype=np.int64),
        "corrupt_ids": np.array([index for index, _ in corrupt], dtype=np.int64),
        "corrupt_reasons": np.array([why for _, why in corrupt], dtype=np.str_),
    }


def eval_batches(
    source: Source,
    model_config: ModelConfig,
    loader_config: DataConfig,
    batch_size: int,
    log: CorruptLog | None = None,
) -> Iterator[EvalBatch]:
    """All readable images in order. The last batch is smaller, and so are batches with unreadable images.

    `loader_config.workers` threads, at least one, load the images: Pillow decodes and resizes without Python's lock.

    Args:
        log: record of unreadable images. Default: a new one without a limit.

    Raises:
        DataError: the source cannot be read, or none of its images.
        TrainingError: as `CorruptLog.add`.
    """
    log = log or CorruptLog(source)
    any_read = False
    for batch, reasons in _in_threads(source, model_config.image_size, batch_size, max(1, loader_config.workers)):
        log.add(reasons)
        if batch is not None:
            any_read = True
            yield batch
    if not any_read:
        raise DataError(f"none of the {len(source)} images in {source.path} can be read")


def _in_threads(
    source: Source, size: int, batch_size: int, threads: int
) -> Iterator[tuple[EvalBatch | None, dict[int, str]]]:
    """Results of `load_readable` for one part of the source after the other."""
    pool = ThreadPoolExecutor(threads)
    upcoming: deque[Future[tuple[EvalBatch | None, dict[int, str]]]] = deque()
    try:
        for start in range(0, len(source), batch_size):
            part = range(start, min(start + batch_size, len(source)))
            upcoming.append(pool.submit(load_readable, source, part, size))
            if len(upcoming) > threads:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def load_readable(source: Source, indices: Iterable[int], size: int) -> tuple[EvalBatch | None, dict[int, str]]:
    """The readable images at `size` pixels, or None if there are none; and number -> reason of the unreadable ones."""
    images, ids, reasons = [], [], {}
    for index in indices:
        try:
            images.append(resize_center_crop(source.load(index), size))
            ids.append(index)
        except ImageError as error:
            reasons[index] = error.reason
    return EvalBatch(stack(images), np.array(ids, dtype=np.int64)) if images else None, reasons


def normalize(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """(pixel / 255 - mean) / std per channel, float32 (B, C, H, W).

    Args:
        images: uint8 (B, C, H, W).
        mean, std: C numbers each, for pixel values in [0, 1].
    """
    scale = (1.0 / (255.0 * np.asarray(std))).astype(np.float32)[:, None, None]
    shift = (np.asarray(mean) / np.asarray(std)).astype(np.float32)[:, None, None]
    result = images.astype(np.float32)
    result *= scale
    result -= shift
    return result
