"""Account of the images that could not be read, and when there are too many of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pcae_core.data.source import Source
from pcae_core.errors import TrainingError

_logger = logging.getLogger("pcae")

_MAX_NAMES = 20


class CorruptLog:
    """Distinct unreadable images of one run; more than `limit` (a share of the source) of them end it."""

    def __init__(self, source: Source, limit: float = 0.01) -> None:
        self._source, self._limit = source, limit
        self._names: dict[int, str] = {}

    @property
    def count(self) -> int:
        """How many there are so far."""
        return len(self._names)

    def add(self, ids: Iterable[int]) -> list[str]:
        """Note the images `ids`, warn of those not seen before, and return their names.

        Raises:
            TrainingError: now there are too many; names them.
        """
        new = {index: self._source.name(index) for index in map(int, ids) if index not in self._names}
        self._names |= new
        if new:
            _logger.warning("cannot read %s; using the next image instead", _list(list(new.values())))
        if self.count > self._limit * len(self._source):
            share = self.count / len(self._source)
            raise TrainingError(
                f"{self.count} of {len(self._source)} images ({share:.1%}) cannot be read, more than "
                f"{self._limit:.0%}; repair or remove them: {_list(list(self._names.values()))}"
            )
        return list(new.values())


def _list(names: list[str]) -> str:
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f", and {more} more" if more > 0 else "")
