"""What can go wrong, in one line each.

Every error that a user can cause is a `PcaeError` whose text is one line: what was wrong and what to do. The
command line prints that line and exits with `exit_code`: 2 when the request was wrong, 1 when the work failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pydantic


class PcaeError(Exception):
    """Base of all errors that PCAE raises on purpose."""

    exit_code = 2


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


class CheckpointError(PcaeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class ModelFileError(PcaeError):
    """An exported model is missing, damaged, not one of ours, or cannot be written."""


class TrainingError(PcaeError):
    """A run had to stop although the request was right."""

    exit_code = 1


class ConformanceError(PcaeError):
    """A backend does not keep the contract."""

    exit_code = 1


class EnvironmentConflictError(PcaeError):
    """Installed packages do not go together, or a backend does not work."""

    exit_code = 1


def describe_validation_error(error: pydantic.ValidationError) -> str:
    """One line that names every setting that pydantic refused and why."""
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {message}" if where else message)
    return "; ".join(problems)
