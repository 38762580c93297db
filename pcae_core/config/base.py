"""Base class of all configurations: strict values, plain data and YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import Field

from pcae_core.errors import ConfigError, describe_validation_error

_DEEPEST = 20  # levels of a YAML file; settings have three

Positive = Annotated[int, Field(ge=1)]
Blocks = Annotated[int, Field(ge=1, le=1000)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
AnyPath = Annotated[Path, Field(strict=False)]
"""A path, or a string that names one."""
Pooling = Literal["cls", "mean"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
EncoderName = Literal["student", "teacher"]
"""One of a run's two encoders. The teacher of a fine-tuned run is the moving average of its weights."""


class Config(pydantic.BaseModel):
    """Base of all configurations: no type coercion, no unknown keys, no change after construction.

    The constructor raises pydantic's ValidationError, a ValueError, for wrong values.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Make one from plain data, as YAML and JSON give it (lists for tuples, strings for paths).

        Raises:
            ConfigError: a value is unknown, missing, of the wrong type or out of range; the text names each.
        """
        try:
            return cls.model_validate_json(json.dumps(values))
        except pydantic.ValidationError as error:
            raise ConfigError(describe_validation_error(error)) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"settings must be plain data: {error}") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Make one from a YAML file. Raises ConfigError."""
        return cls.from_dict(read_yaml(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` accepts."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """YAML text that `from_yaml` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def is_utf8(name: str) -> bool:
    """Whether a file name can be encoded as UTF-8, in which runs store paths."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class _Loader(yaml.SafeLoader):
    """Plain YAML. Refuses aliases, which can make a short file endless, and deep nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported; write the value again")
        if self._depth == _DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {_DEEPEST} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when the file cannot be read or holds no mapping."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # nosec B506 # a SafeLoader, see above
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    except Exception as error:  # besides its own errors, PyYAML raises almost any for tags such as "!!int x"
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(values).__name__}")
    return values
