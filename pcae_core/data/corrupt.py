"""Account of the images that could not be read, and when there are too many of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pcae_core.data.sources.base import Source
from pcae_core.errors import ConfigError, TrainingError, listed

_logger = logging.getLogger("pcae")


class CorruptLog:
    """Distinct unreadable images of a source and why; more than `limit` (a share of the source) of them end the work.

    Attributes:
        fate: what becomes of an unreadable image, for the warnings.
    """

    def __init__(self, source: Source, limit: float = 1.0, fate: str = "left out") -> None:
        """Args:
            limit: share of the source that may be unreadable.

        Raises:
            ConfigError: `limit` is not from 0 to 1.
        """
        if not 0 <= limit <= 1:
            raise ConfigError(f"max_corrupt must be from 0 to 1, not {limit}")
        self._source, self._limit, self.fate = source, limit, fate
        self._found: dict[int, str] = {}

    @property
    def count(self) -> int:
        """How many there are so far."""
        return len(self._found)

    @property
    def numbers(self) -> list[int]:
        """Theirs in the source."""
        return list(self._found)

    def add(self, reasons: Mapping[int, str]) -> list[str]:
        """Note images, why they cannot be read by number; warn of those not seen before, and return their names.

        Raises:
            TrainingError: now there are too many; names them.
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
        """A line that counts and names them; none where all images could be read."""
        return [f"{self._counted()} and are left out: {listed(list(self._found.values()))}"] if self._found else []

    def _counted(self) -> str:
        total = len(self._source)
        return f"{self.count} of {total} images in {self._source.path} ({self.count / total:.1%}) cannot be read"

    def _described(self, index: int, reason: str) -> str:
        return f"{self._source.name(index)} ({reason})"
