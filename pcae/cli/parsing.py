"""Turn arguments into configurations. Flags override single settings of a YAML file or a preset."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import pydantic
import tyro

from pcae_core.config import Config
from pcae_core.errors import ConfigError, describe_validation_error

FLAGS = {
    "config": "YAML file of settings.",
    "preset": "timm name of a model, such as vit_small_patch16_224.",
    "resume": "folder of a run to continue with its own settings.",
    "drop": "share of the patch tokens that each stage drops, the paper's r; sets keep to 1 - r.",
}
"""Help of the flags that choose the settings to start from; `split_off` takes them out of the arguments."""

T = TypeVar("T")
C = TypeVar("C", bound=Config)


def parse(target: Callable[..., T], command: str, arguments: Sequence[str], **options: Any) -> T:
    """Parse with tyro. Raises SystemExit after --help (0) or for arguments that tyro refuses (2)."""
    parsed: T = tyro.cli(target, prog=f"pcae {command}", args=arguments, **options)
    return parsed


def parse_config(
    default: C,
    command: str,
    arguments: Sequence[str],
    description: str,
    flags: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> C:
    """`default` with the settings replaced that the arguments name.

    tyro only collects the values. pydantic validates them all together.

    Args:
        flags: flags of FLAGS that the caller has already taken out of the arguments; only the help lists them.
        without: settings that have no flag.

    Raises:
        ConfigError: pydantic refused a value; the text names each of them.
        SystemExit: as `parse`.
    """
    start = filled(default, flags, without)
    values = parse(type(start), command, arguments, default=start, description=description)
    settings = {name: value for name, value in dataclasses.asdict(values).items() if name not in flags}
    kept = {name: getattr(default, name) for name in without}
    try:
        return type(default).model_validate(kept | settings)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation_error(error)) from None


@functools.cache
def _plain(config_class: type[Config], without: tuple[str, ...]) -> Any:
    """A dataclass with the fields and the help texts of a configuration, without its checks."""
    fields: list[tuple[str, Any]] = []
    for name, info in config_class.model_fields.items():
        if name in without:
            continue
        annotation: Any = info.annotation
        nested = isinstance(annotation, type) and issubclass(annotation, Config)
        fields.append((name, _plain(annotation, ()) if nested else annotation))
    made = dataclasses.make_dataclass(config_class.__name__, fields)
    made.__doc__ = _documentation(config_class)
    return made


def _documentation(config_class: type[Config]) -> str:
    """The docstring, and the attributes that base classes describe."""
    text = inspect.cleandoc(config_class.__doc__ or "")
    for base in config_class.__mro__[1:]:
        if base is not Config and issubclass(base, Config):
            text += "\n" + inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
    return text


def filled(config: Config, flags: tuple[str, ...], without: tuple[str, ...] = ()) -> Any:
    """Instance of the dataclass that tyro parses into: these FLAGS and the settings, with `config` as the defaults."""
    return _with_flags(type(config), flags, without)(**vars(_fill(config, without)))


@functools.cache
def _with_flags(config_class: type[Config], flags: tuple[str, ...], without: tuple[str, ...]) -> Any:
    fields = [(name, Annotated[str | None, tyro.conf.arg(help=FLAGS[name])], None) for name in flags]
    made = dataclasses.make_dataclass(config_class.__name__, fields, bases=(_plain(config_class, without),))
    made.__doc__ = _documentation(config_class)
    return made


def _fill(config: Config, without: tuple[str, ...] = ()) -> Any:
    values = {name: getattr(config, name) for name in type(config).model_fields if name not in without}
    return _plain(type(config), without)(**{k: _fill(v) if isinstance(v, Config) else v for k, v in values.items()})


def split_off(arguments: Sequence[str], *flags: str) -> tuple[dict[str, str | None], list[str]]:
    """Take `--flag VALUE` out of the arguments: values by flag, and the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in flags:
        parser.add_argument(f"--{flag}", metavar="VALUE")
    values, rest = parser.parse_known_args(arguments)
    return vars(values), rest
