"""Record of unreadable images, with a limit on their number."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pcae_core.data.sources.base import Source
from pcae_core.errors import ConfigError, TrainingError, listed

_logger = logging.getLogger("pcae")


class CorruptLog:
    """Record of the unreadable images of a source, and the reasons. It raises when they are too many.

    Attributes:
        fate: words for the treatment of an unreadable image, for the warnings.
    """

    def __init__(self, source: Source, limit: float = 1.0, fate: str = "left out") -> None:
        """Args:
            limit: largest share of the source that may be unreadable.

        Raises:
            ConfigError: `limit` is not from 0 to 1.
        """
        if not 0 <= limit <= 1:
            raise ConfigError(f"max_corrupt must be from 0 to 1, not {limit}")
        self._source, self._limit, self.fate = source, limit, fate
        self._found: dict[int, str] = {}

    @property
    def count(self) -> int:
        """Number of unreadable images so far."""
        return len(self._found)

    @property
    def numbers(self) -> list[int]:
        """Numbers of these images in the source."""
        return list(self._found)

    def add(self, reasons: Mapping[int, str]) -> list[str]:
        """Record unreadable images, given as number -> reason. Warn of the new ones and return their names.

        Raises:
            TrainingError: more images than `limit` are unreadable; the text names them.
        """
        new = {index: self._described(index, why) for index, why in reasons.items() if index not in self._found}
        self._found |= new
        if new:
            _logger.warning("unreadable and %s: %s", self.fate, listed(list(new.values())))
        if self.count > self._limit * len(self._source):
            raise TrainingError(
                f"{self._counted()}, more than max_corrupt {self._limit:g} allows; see why, repair or remove them, or "
                f"raise max_corrupt: {listed(list(self._found.values()))}"
            )
        return [self._source.name(index) for index in new]

    def summary(self) -> list[str]:
        """One line that counts and names the unreadable images; no line if all could be read."""
        return [f"{self._counted()} and are left out: {listed(list(self._found.values()))}"] if self._found else []

    def _counted(self) -> str:
        total = len(self._source)
        return f"{self.count} of {total} images in {self._source.path} ({self.count / total:.1%}) cannot be read"

    def _described(self, index: int, reason: str) -> str:
        return f"{self._source.name(index)} ({reason})"
