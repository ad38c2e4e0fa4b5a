"""Configuration of services: a TOML file, the environment (CURVE_*), flags; the later wins.

Owns: where settings come from and the sentence when one is wrong. Each service declares its keys as
a subclass of ServiceSettings; every key is a TOML key, CURVE_<KEY> and --<key>. Keys of tables and
lists come from the file, or as JSON from the environment.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from curve_py.errors import ConfigError
from curve_py.sizes import parse_size
from curve_py.types import uuid_bytes
from curve_py.volume_map import split_address

ENV_PREFIX = "CURVE_"


def _size(value: Any) -> int:
    try:
        return parse_size(value)
    except Exception as error:
        raise ValueError(str(error)) from None


def _address(value: Any) -> str:
    try:
        split_address(str(value))
    except Exception as error:
        raise ValueError(str(error)) from None
    return str(value)


def _address_or_none(value: Any) -> str:
    return _address(value) if value else ""


def _uuid(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not value:
        return b""
    try:
        return uuid_bytes(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a UUID.") from None


SizeBytes = Annotated[int, BeforeValidator(_size)]
Address = Annotated[str, BeforeValidator(_address)]
OptionalAddress = Annotated[str, BeforeValidator(_address_or_none)]
Uuid = Annotated[bytes, BeforeValidator(_uuid)]


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid"
    )

    secret_file: Path = Field(description="file with the cluster's secret, mode 0600")
    http_listen: OptionalAddress = Field("", description="HOST:PORT of /metrics and /healthz")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(init_settings, InitSettingsSource)
        values = dict(init_settings.init_kwargs)
        in_file = InitSettingsSource(settings_cls, values.pop("from_file", {}))
        flags = InitSettingsSource(settings_cls, values)
        return (flags, env_settings, in_file)


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(
    cls: type[Settings], program: str, about: str, arguments: Sequence[str] | None = None
) -> Settings:
    """The settings of a service from its command line. Raises ConfigError; --help exits."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--config", metavar="F", type=Path, help="TOML file")
    for name, field in cls.model_fields.items():
        _add_flag(parser, name, field.annotation, field.description or "")
    given = vars(parser.parse_args(arguments))
    path: Path | None = given.pop("config")
    flags = {name: value for name, value in given.items() if value is not None}
    in_file = _read_toml(path) if path else {}
    unknown = sorted(in_file.keys() - cls.model_fields.keys())
    if unknown:
        raise ConfigError(f"{path} has the unknown key '{unknown[0]}'.", f"See {program} --help.")
    try:
        return cls(**flags, from_file=in_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(_sentence(error, path)) from None


def _add_flag(parser: argparse.ArgumentParser, name: str, annotation: Any, about: str) -> None:
    flag = "--" + name.replace("_", "-")
    if annotation is bool:
        parser.add_argument(
            flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=about
        )
        return
    inner = get_args(annotation)
    if annotation is dict or any(
        isinstance(part, type) and issubclass(part, BaseModel) for part in inner
    ):
        return
    if inner and annotation is not None and getattr(annotation, "__origin__", None) is dict:
        return
    if inner and getattr(annotation, "__origin__", None) in (list, tuple):
        parser.add_argument(flag, dest=name, action="append", metavar="V", help=about)
        return
    parser.add_argument(flag, dest=name, metavar="V", help=about)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration file {path}.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


def _sentence(error: ValidationError, path: Path | None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f" (in {path}, the environment or the flags)" if path else ""
    if first["type"] == "missing":
        return f"The setting '{key}' is missing{where}."
    text = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"The setting '{key}' is wrong{where}: {text}."
