"""Records to bytes and back: canonical JSON, one encoding for commands and snapshots
(docs/formats/metaserver-log.md).

Invariant (R16): one record has one encoding: fields in the order of their declaration, no spaces,
UTF-8; no unordered maps anywhere. A record with an unknown name, version or field is refused, never
guessed at. Any thread.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from metaserver.domain import commands, entities

VERSION = 1
_Convert = Callable[[Any], Any]


class CodecError(Exception):
    """These bytes are not a record that this program knows."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    name: str
    to_json: _Convert
    from_json: _Convert
    default: Any


class _Shape:
    """How one record class looks, worked out once."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        hints = get_type_hints(cls)
        self.fields = tuple(
            _Field(field.name, *_conversion(hints[field.name]), field.default)
            for field in dataclasses.fields(cls)
        )
        self.names = frozenset(field.name for field in self.fields)

    def to_json(self, record: Any) -> dict[str, Any]:
        return {field.name: field.to_json(getattr(record, field.name)) for field in self.fields}

    def from_json(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise CodecError(f"A {self.cls.__name__} is not an object: {value!r:.80}.")
        unknown = value.keys() - self.names
        if unknown:
            raise CodecError(f"A {self.cls.__name__} has unknown fields {sorted(unknown)}.")
        arguments = []
        for field in self.fields:
            if field.name in value:
                arguments.append(field.from_json(value[field.name]))
            elif field.default is not dataclasses.MISSING:
                arguments.append(field.default)
            else:
                raise CodecError(f"A {self.cls.__name__} lacks '{field.name}'.")
        return self.cls(*arguments)


_shapes: dict[type[Any], _Shape] = {}


def _shape(cls: type[Any]) -> _Shape:
    shape = _shapes.get(cls)
    if shape is None:
        shape = _shapes[cls] = _Shape(cls)
    return shape


def _identity(value: Any) -> Any:
    return value


def _checked(cls: type[Any]) -> _Convert:
    def convert(value: Any) -> Any:
        if type(value) is not cls:
            raise CodecError(f"{value!r:.80} is not of type {cls.__name__}.")
        return value

    return convert


def _bytes_from_hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise CodecError(f"{value!r:.80} is not hexadecimal.") from None


def _enum_from_json(cls: type[Enum]) -> _Convert:
    def convert(value: Any) -> Any:
        try:
            return cls(value)
        except ValueError:
            raise CodecError(f"{value!r:.80} is no {cls.__name__}.") from None

    return convert


def _conversion(hint: Any) -> tuple[_Convert, _Convert]:
    origin = get_origin(hint)
    if origin is tuple:
        item_to, item_from = _conversion(get_args(hint)[0])
        return _tuple_conversion(item_to, item_from)
    if origin in (Union, types.UnionType):
        return to_tagged, from_tagged
    if hint is bytes:
        return bytes.hex, _bytes_from_hex
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: value.value, _enum_from_json(hint)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return lambda value: _shape(hint).to_json(value), lambda value: _shape(hint).from_json(
            value
        )
    if hint in (int, str, bool):
        return _identity, _checked(hint)
    raise TypeError(f"no encoding for {hint}")


def _tuple_conversion(item_to: _Convert, item_from: _Convert) -> tuple[_Convert, _Convert]:
    def from_json(value: Any) -> Any:
        if not isinstance(value, list):
            raise CodecError(f"{value!r:.80} is not a list.")
        return tuple(item_from(item) for item in value)

    return lambda value: [item_to(item) for item in value], from_json


_CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for module in (commands, entities)
    for cls in vars(module).values()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type)
}


def to_tagged(record: Any) -> dict[str, Any]:
    """{"is": name of the class, fields...}."""
    return {"is": type(record).__name__, **_shape(type(record)).to_json(record)}


def from_tagged(value: Any) -> Any:
    if not isinstance(value, dict) or value.get("is") not in _CLASSES:
        name = value.get("is") if isinstance(value, dict) else value
        raise CodecError(f"This program does not know the record {name!r:.80}.")
    fields = {key: item for key, item in value.items() if key != "is"}
    return _shape(_CLASSES[value["is"]]).from_json(fields)


def dump_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def encode_command(command: commands.Command) -> bytes:
    return dump_json({"version": VERSION, "command": to_tagged(command)})


def decode_command(data: bytes) -> commands.Command:
    """Raises CodecError."""
    try:
        value = json.loads(data)
    except ValueError:
        raise CodecError("A command is not JSON.") from None
    if not isinstance(value, dict) or value.get("version") != VERSION:
        raise CodecError(f"A command has another version than {VERSION}.")
    record = from_tagged(value.get("command"))
    if not isinstance(record, commands.Command):
        raise CodecError(f"A {type(record).__name__} is not a command.")
    return record
