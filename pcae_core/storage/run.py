"""A run: the files in its folder, its checkpoints, and the lock on it.

RUN/
    config.yaml  metrics.jsonl  tensorboard/  checkpoints/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pcae_core.config import DataConfig, ModelConfig, RunConfig, read_yaml
from pcae_core.config.finetune import AnyRunConfig
from pcae_core.contract import TrainState
from pcae_core.errors import CheckpointError, ConfigError
from pcae_core.storage import atomic, checkpoint
from pcae_core.storage.checkpoint import Checkpoint, DataPosition, Manifest

CONFIG, LOCK, METRICS = "config.yaml", ".lock", "metrics.jsonl"

C = TypeVar("C", bound=RunConfig)


class Run:
    """A run's folder, or the folder of one of its checkpoints. Each file is read when it is first needed, and once.

    Attributes:
        path: the folder, as the user named it.
    """

    def __init__(self, path: Path) -> None:
        """Name a run's folder. It may be empty, or not exist yet."""
        self.path = path
        self._manifests: dict[Path, Manifest] = {}

    @classmethod
    def open(cls, run: Path | Run) -> Run:
        """A run with a checkpoint.

        Args:
            run: a run's folder, or the folder of one of its checkpoints. A `Run` is returned as it is.

        Raises:
            CheckpointError: there is no checkpoint.
        """
        if isinstance(run, Run):
            return run
        checkpoint.find(run)
        return cls(run)

    def __str__(self) -> str:
        return str(self.path)

    # Checkpoints

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that exist now, oldest first."""
        return checkpoint.checkpoints_of(self.path)

    @property
    def newest(self) -> Path:
        """The newest checkpoint. Raises CheckpointError when there is none."""
        return checkpoint.find(self.path)

    @property
    def best(self) -> Path:
        """The best checkpoint, or the newest where none was measured. Raises CheckpointError when there is none."""
        return checkpoint.best(self._all_manifests()) or self.newest

    @property
    def default(self) -> Path:
        """The checkpoint to read unless the user names another: of a fine-tuned run the best, else the newest."""
        return self.best if self.kind == "finetune" else self.newest

    def only(self, path: Path) -> Run:
        """The run with this one of its checkpoints alone."""
        one = Run(path)
        one._manifests = self._manifests
        return one

    def manifest_of(self, path: Path) -> Manifest:
        """The manifest of one of the checkpoints. Raises CheckpointError when it is damaged."""
        if path not in self._manifests:
            self._manifests[path] = checkpoint.read_manifest(path)
        return self._manifests[path]

    def _all_manifests(self) -> dict[Path, Manifest]:
        return {path: self.manifest_of(path) for path in self.checkpoints}

    @property
    def manifest(self) -> Manifest:
        """The manifest of the newest checkpoint. Raises CheckpointError when it is missing or damaged."""
        return self.manifest_of(self.newest)

    @property
    def kind(self) -> Literal["pretrain", "finetune"]:
        """The kind of run, as the newest checkpoint says. Raises CheckpointError."""
        return self.manifest.kind

    def load(self, path: Path, model: ModelConfig | None = None) -> Checkpoint:
        """One of the checkpoints with its state; `model` and errors as in `checkpoint.load`."""
        return checkpoint.read(path, self.manifest_of(path), model)

    # Settings and measurements

    @property
    def metrics(self) -> Path:
        """The file of measurements, a JSON object a line."""
        return self.path / METRICS

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The content of `config.yaml`, unchecked: another version may have written it.

        Raises:
            CheckpointError: there is no such file.
            ConfigError: it cannot be read.
        """
        path = self.path / CONFIG
        if not path.is_file():
            raise CheckpointError(f"{self.path} is not a run's folder: it holds no {CONFIG}")
        return read_yaml(path)

    @cached_property
    def model(self) -> ModelConfig:
        """The model of `settings`. Raises as `settings`."""
        return ModelConfig.from_dict(self.settings.get("model", {}))

    @cached_property
    def loader(self) -> DataConfig:
        """The loader of `settings`. Raises as `settings`."""
        return DataConfig.from_dict(self.settings.get("loader", {}))

    @property
    def data(self) -> Path | None:
        """The data set of `settings`, if they name one. Raises as `settings`."""
        found = self.settings.get("data")
        return Path(found) if isinstance(found, str) else None

    @property
    def seed(self) -> int | None:
        """The seed of `settings`, if they name one. Raises as `settings`."""
        found = self.settings.get("seed")
        return found if isinstance(found, int) else None

    @property
    def steps(self) -> int | None:
        """The run's length of `settings`, if they give it in steps. Raises as `settings`."""
        found = self.settings.get("steps")
        return found if isinstance(found, int) else None

    def continued(self, kind: type[C]) -> C:
        """The settings with which the run goes on.

        Raises:
            CheckpointError: it is a run of another kind, or has no checkpoint.
            ConfigError: the settings cannot be read.
        """
        self.check_kind(checkpoint.kind_of(kind))
        return kind.from_dict(self.settings).model_copy(update={"out": self.path})

    def check_kind(self, kind: str) -> None:
        """Raises CheckpointError when it is a run of another kind, or has no checkpoint."""
        if self.kind != kind:
            raise CheckpointError(f"{self.path} is a run of pcae {self.kind}, not of pcae {kind}")

    # Training

    @contextmanager
    def training(self, config: RunConfig) -> Iterator[None]:
        """Make the folder, keep other processes from training in it, and write the configuration.

        The lock ends with the process, however that ends.

        Raises:
            ConfigError: another process trains there, or the disk refuses.
        """
        import filelock  # takes a while, and only training needs it

        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(self.path / LOCK, timeout=0))
                with atomic.whole_file(self.path / CONFIG) as writing:
                    writing.write_text(config.to_yaml(), encoding="utf-8")
            except filelock.Timeout:
                advice = "wait for it, stop it, or choose another --out"
                raise ConfigError(f"another process trains in {self.path}; {advice}") from None
            except OSError as error:
                problem = error.strerror or error
                raise ConfigError(
                    f"cannot write the run's folder {self.path}: {problem}; choose another --out"
                ) from None
            yield

    def save(
        self,
        state: TrainState,
        config: AnyRunConfig,
        data: DataPosition,
        metrics: dict[str, float],
        framework: dict[str, str],
    ) -> Path:
        """Write a checkpoint, as `checkpoint.save` does, and delete old ones. Raises CheckpointError."""
        written = checkpoint.save(self.path / checkpoint.CHECKPOINTS, state, config, data, metrics, framework)
        checkpoint.prune(self._all_manifests())
        return written
