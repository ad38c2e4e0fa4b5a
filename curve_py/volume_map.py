"""The volume map: what the native client needs to find every byte of a volume
(docs/formats/volume-map.md).

Owns both directions; the native reader is written from the page. Pure functions, any thread.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from curve_py.errors import CorruptError, InvalidError
from curve_py.types import REPLICAS_MAX

MAGIC = b"CVMP"
VERSION = 1
FLAG_READ_ONLY = 1
_HEADER = struct.Struct("<4sHHIQQQQQIIIIQ")
_STORE = struct.Struct("<16sHBB16s")
_COPYSET = struct.Struct("<BB7H")
_CHECKSUM = struct.Struct("<I")
_NO_STORE = 0xFFFF

assert (_HEADER.size, _STORE.size, _COPYSET.size) == (76, 36, 16)


@dataclass(frozen=True, slots=True)
class MapStore:
    store_id: bytes
    address: str  # IP:PORT, IPv6 in brackets


@dataclass(frozen=True, slots=True)
class MapCopyset:
    stores: tuple[int, ...]  # indexes into VolumeMap.stores
    preferred_position: int


@dataclass(frozen=True, slots=True)
class VolumeMap:
    map_version: int
    volume_id: int
    placement_id: int
    size_bytes: int
    epoch: int
    stripe_unit_bytes: int
    stripe_count: int
    pool_id: int
    read_only: bool
    stores: tuple[MapStore, ...]
    copysets: tuple[MapCopyset, ...]


def encode(volume_map: VolumeMap) -> bytes:
    """The bytes of the map. Raises InvalidError for what the format cannot hold."""
    stores, copysets = volume_map.stores, volume_map.copysets
    if not copysets or len(copysets) & (len(copysets) - 1):
        raise InvalidError(f"A pool has a power-of-two number of copysets, not {len(copysets)}.")
    if len(stores) >= _NO_STORE:
        raise InvalidError(f"A volume map holds at most {_NO_STORE - 1} stores.")
    total = _HEADER.size + len(stores) * _STORE.size + len(copysets) * _COPYSET.size
    total += _CHECKSUM.size
    parts = [
        _HEADER.pack(
            MAGIC,
            VERSION,
            FLAG_READ_ONLY if volume_map.read_only else 0,
            total,
            volume_map.map_version,
            volume_map.volume_id,
            volume_map.placement_id,
            volume_map.size_bytes,
            volume_map.epoch,
            volume_map.stripe_unit_bytes,
            volume_map.stripe_count,
            len(copysets),
            len(stores),
            volume_map.pool_id,
        )
    ]
    parts.extend(_encode_store(store) for store in stores)
    parts.extend(_encode_copyset(copyset, len(stores)) for copyset in copysets)
    body = b"".join(parts)
    return body + _CHECKSUM.pack(crc32c(body))


def decode(data: bytes) -> VolumeMap:
    """The map in `data`. Raises CorruptError, which says what is wrong with it."""
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise CorruptError(f"A volume map of {len(data)} bytes is shorter than its header.")
    fields = _HEADER.unpack_from(data)
    magic, version, flags, total = fields[:4]
    copyset_count, store_count, pool_id = fields[11:14]
    if magic != MAGIC:
        raise CorruptError("These bytes are not a volume map: the magic at offset 0 is another.")
    if version != VERSION:
        raise CorruptError(f"The volume map has version {version}; this program reads {VERSION}.")
    expected = _HEADER.size + store_count * _STORE.size + copyset_count * _COPYSET.size
    if total != len(data) or total != expected + _CHECKSUM.size:
        raise CorruptError("The volume map's counts do not add up to its size.")
    if crc32c(data[:-4]) != _CHECKSUM.unpack_from(data, expected)[0]:
        raise CorruptError("The volume map's checksum does not match.")
    if not copyset_count or copyset_count & (copyset_count - 1):
        raise CorruptError(f"The volume map's copyset count {copyset_count} is no power of two.")
    copysets_at = _HEADER.size + store_count * _STORE.size
    return VolumeMap(
        map_version=fields[4],
        volume_id=fields[5],
        placement_id=fields[6],
        size_bytes=fields[7],
        epoch=fields[8],
        stripe_unit_bytes=fields[9],
        stripe_count=fields[10],
        pool_id=pool_id,
        read_only=bool(flags & FLAG_READ_ONLY),
        stores=tuple(
            _decode_store(data, _HEADER.size + i * _STORE.size) for i in range(store_count)
        ),
        copysets=tuple(
            _decode_copyset(data, copysets_at + i * _COPYSET.size, store_count)
            for i in range(copyset_count)
        ),
    )


def split_address(address: str) -> tuple[str, int]:
    """("10.0.0.1", 80) of "10.0.0.1:80", ("::1", 80) of "[::1]:80". Raises InvalidError."""
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not separator or not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise InvalidError(f"'{address}' is not an address.", "Write it like 10.0.0.1:7000.")
    return host, int(port)


def check_numeric_address(address: str) -> None:
    """Raises InvalidError unless the host is an IP number, as volume maps need it."""
    host, port = split_address(address)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InvalidError(f"'{address}' needs an IP number, not a name.") from None
    if port == 0:
        raise InvalidError(f"'{address}' has no port.")


def _encode_store(store: MapStore) -> bytes:
    check_numeric_address(store.address)
    host, port = split_address(store.address)
    number = ipaddress.ip_address(host)
    return _STORE.pack(store.store_id, port, number.version, 0, number.packed)


def _encode_copyset(copyset: MapCopyset, store_count: int) -> bytes:
    count = len(copyset.stores)
    if not 1 <= count <= REPLICAS_MAX or not 0 <= copyset.preferred_position < count:
        raise InvalidError(f"A copyset with {count} replicas does not fit into a volume map.")
    if not all(0 <= index < store_count for index in copyset.stores):
        raise InvalidError("A copyset names a store that the volume map does not hold.")
    slots = copyset.stores + (_NO_STORE,) * (REPLICAS_MAX - count)
    return _COPYSET.pack(count, copyset.preferred_position, *slots)


def _decode_store(data: bytes, offset: int) -> MapStore:
    store_id, port, family, _, address = _STORE.unpack_from(data, offset)
    if family == 4:
        return MapStore(store_id, f"{ipaddress.IPv4Address(address[:4])}:{port}")
    if family == 6:
        return MapStore(store_id, f"[{ipaddress.IPv6Address(address)}]:{port}")
    raise CorruptError(f"The store at offset {offset} of the volume map has family {family}.")


def _decode_copyset(data: bytes, offset: int, store_count: int) -> MapCopyset:
    count, preferred, *slots = _COPYSET.unpack_from(data, offset)
    stores = tuple(slots[:count])
    if not 1 <= count <= REPLICAS_MAX or preferred >= count:
        raise CorruptError(f"The copyset at offset {offset} of the volume map is malformed.")
    if any(index >= store_count for index in stores):
        raise CorruptError(f"The copyset at offset {offset} of the volume map names no store.")
    return MapCopyset(stores, preferred)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc32c(data: Iterable[int]) -> int:
    """CRC32C (Castagnoli, RFC 3720 B.4), for small control structures only: a byte at a time."""
    table, value = _TABLE, 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF
