"""What can go wrong, in one line each.

Every error that a user can cause is a `PcaeError` whose text is one line: what was wrong and what to do. The
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

    Its text is made one line of printable characters and bounded length: names in it may be out of a hostile file.
    """

    exit_code = 2

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))


class ConfigError(PcaeError, ValueError):
    """A configuration is not valid."""


class ShapeError(PcaeError, ValueError):
    """Arrays do not fit together."""


class BackendError(PcaeError):
    """A backend is unknown, not installed, or cannot do what was asked."""


class MissingExtraError(BackendError):
    """An optional dependency is not installed; the text names the extra."""


class DataError(PcaeError):
    """A data set cannot be read."""


class ImageError(DataError):
    """One image cannot be read; the others may be.

    Attributes:
        name: of the image.
        reason: why, in one line without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read the image {name}: {reason}")
        self.name, self.reason = name, _one_line(reason)

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class CheckpointError(PcaeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class ModelFileError(PcaeError):
    """An exported model is missing, damaged, not one of ours, or cannot be written."""


class TrainingError(PcaeError):
    """A run had to stop although the request was right."""

    exit_code = 1


class IncompleteError(PcaeError):
    """The work was done, but not for all that was asked for."""

    exit_code = 1


class ConformanceError(PcaeError):
    """A backend does not keep the contract."""

    exit_code = 1


class EnvironmentConflictError(PcaeError):
    """Installed packages do not go together, or a backend does not work."""

    exit_code = 1


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    shown = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ... ({len(line) - _LONGEST} characters more)"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Up to 20 names, and how many more there are of the `count`, by default those in `names`."""
    more = (len(names) if count is None else count) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f", and {more} more" if more > 0 else "")


def describe_validation_error(error: pydantic.ValidationError) -> str:
    """One line that names every setting that pydantic refused and why."""
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {message}" if where else message)
    return "; ".join(problems)
