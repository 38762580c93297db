"""Images in a folder that `datasets.Dataset.save_to_disk` wrote (Hugging Face)."""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from pcae_core.config.data import USUAL, Reading
from pcae_core.data import images
from pcae_core.data.sources.base import Source, SourceKind
from pcae_core.data.sources.labels import NO_CLASS, check_labels, check_names
from pcae_core.errors import DataError, ImageError, MissingExtraError

_LABEL_NAMES = ("label", "labels")


class HuggingFaceSource(Source):
    """The first image column. Classes are the first `ClassLabel` column, else a column "label" or "labels"."""

    def __init__(self, path: Path, in_chans: int, reading: Reading = USUAL) -> None:
        """Find the columns.

        Raises:
            DataError: the folder cannot be read or has no column of images, or `in_chans` is neither 1 nor 3.
            MissingExtraError: `datasets` is not installed.
        """
        super().__init__(path, in_chans, reading)
        images.check_file_channels(in_chans)
        datasets = _import_datasets()
        features = self._dataset.features
        columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        if not columns:
            raise DataError(f"{path} has no column of images; its columns are {', '.join(features)}")
        if not len(self):
            raise DataError(f"{path} holds no images")
        self._image_column = columns[0]
        classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        self._label_column = next(iter(classes + [name for name in _LABEL_NAMES if name in features]), None)

    @functools.cached_property
    def _dataset(self) -> Any:
        datasets = _import_datasets()
        try:
            found = datasets.load_from_disk(str(self.path)).with_format(None)
            found.data.table.validate(full=True)  # Arrow checks nothing while it reads
            return found
        except Exception as error:  # Arrow, JSON and the file system raise many kinds of errors for a damaged folder
            raise DataError(f"cannot read the data set {self.path}: {' '.join(str(error).split())}") from error

    @functools.cached_property
    def _files(self) -> Any:
        """Rows of the image column, not decoded: {"bytes": content or None, "path": path or None}."""
        column = self._dataset.select_columns(self._image_column)
        return column.cast_column(self._image_column, _import_datasets().Image(decode=False))

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        """Folder name and number."""
        return f"{self.path.name}[{index}]"

    @override
    def load(self, index: int) -> Image.Image:
        name = f"{self.path}[{index}]"
        file = self._files[index][self._image_column]
        if file is None or (file["bytes"] is None and file["path"] is None):
            raise ImageError(name, "the entry is empty")
        content = Path(file["path"]) if file["bytes"] is None else io.BytesIO(file["bytes"])
        return self._read(content, name)

    @functools.cached_property
    def labels(self) -> NDArray[np.int64] | None:
        """The label column, if it has integers. An empty entry counts as -1, no class. See `Source.labels`."""
        if not self._has_numbers:
            return None
        column = self._dataset.select_columns(self._label_column).with_format("arrow")[:][self._label_column]
        try:
            numbers = column.cast("int64").fill_null(NO_CLASS).to_numpy()
        except ValueError as error:  # Arrow's errors about values that do not fit
            raise DataError(f"labels in {self.path} must be numbers of classes from 0: {error}") from None
        return check_labels(self.path, numbers, self.class_names)

    @override
    @property
    def no_labels(self) -> str:
        if self._label_column is None:
            return "it has no column of classes"
        if not self._has_numbers:
            return f"its column {self._label_column} is not of integers"
        return f"in its column {self._label_column} all labels are -1 or empty"

    @property
    def _has_numbers(self) -> bool:
        feature = self._dataset.features.get(self._label_column)
        return re.fullmatch(r"u?int\d+", str(getattr(feature, "dtype", ""))) is not None

    @property
    def class_names(self) -> list[str] | None:
        """The names in a `ClassLabel`. Raises DataError when they are not text, or two are the same."""
        names = getattr(self._dataset.features.get(self._label_column), "names", None)
        if names is None:
            return None
        if not all(isinstance(name, str) for name in names):
            raise DataError(f"the names of the classes in {self.path} are not all text: {names}")
        return check_names(self.path, names)

    @property
    def fingerprint(self) -> str:
        """The fingerprint that `datasets` stores with the data."""
        return str(self._dataset._fingerprint)


def _import_datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f'reading this data set needs {error.name}, which is not installed; install it with: pip install "pcae[hf]"'
        ) from None
    except ImportError as error:  # such as an Arrow that does not work with this NumPy
        reason = " ".join(str(error).split())
        raise MissingExtraError(f"reading this data set needs datasets, which cannot be loaded: {reason}") from None
    return datasets


def _recognizes(path: Path) -> bool:
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _splits(path: Path) -> dict[str, Path]:
    """The splits of a `DatasetDict`."""
    if not (path / "dataset_dict.json").is_file():
        return {}
    return {folder.name: folder for folder in path.iterdir() if folder.is_dir()}


KIND = SourceKind(
    "a folder that Hugging Face's datasets wrote",
    "a folder",
    "a column of classes",
    _recognizes,
    _splits,
    HuggingFaceSource,
)
