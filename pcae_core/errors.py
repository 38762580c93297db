"""The errors that PCAE raises on purpose.

Every error that a user can cause is a `PcaeError`. Its text is one line that says what was wrong and what to do. The
command line prints that line and exits with `exit_code`: 2 when the request was wrong, 1 when the work failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pydantic

_LONGEST = 10_000
_MOST_NAMES = 20


class PcaeError(Exception):
    """Base of all errors that PCAE raises on purpose.

    The text may hold names out of a hostile file. It is therefore reduced to one line of printable characters and
    bounded length.
    """

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))


class ConfigError(PcaeError, ValueError):
    """A configuration is not valid."""


class ShapeError(PcaeError, ValueError):
    """Arrays do not fit together."""


class BackendError(PcaeError):
    """A backend is unknown, not installed, or cannot do the requested work."""


class MissingExtraError(BackendError):
    """An optional dependency is not installed; the text names the extra."""


class DataError(PcaeError):
    """A data set cannot be read."""


class ImageError(DataError):
    """One image cannot be read; other images of the source may still be readable.

    Attributes:
        name: name of the image.
        reason: the reason, in one line without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the image {name}: {reason}")
        self.name, self.reason = name, _one_line(reason)

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class CheckpointError(PcaeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class ModelFileError(PcaeError):
    """An exported model is missing, damaged, not written by PCAE, or cannot be written."""


class TrainingError(PcaeError):
    """A run had to stop although the request was valid."""

    exit_code = 1


class IncompleteError(PcaeError):
    """The work is done for a part of the inputs only."""

    exit_code = 1


class ConformanceError(PcaeError):
    """A backend does not conform to the contract."""

    exit_code = 1


class EnvironmentConflictError(PcaeError):
    """Installed packages do not work together, or a backend does not work."""

    exit_code = 1


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    shown = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ... ({len(line) - _LONGEST} characters more)"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Up to 20 of the names, and the number of the others. `count` is the number of all; by default `len(names)`."""
    more = (len(names) if count is None else count) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", and {more} more" if more > 0 else "")


def describe_validation_error(error: pydantic.ValidationError) -> str:
    """One line that names every setting that pydantic refused, with the reason."""
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {message}" if where else message)
    return "; ".join(problems)
