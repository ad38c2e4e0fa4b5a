"""The kernel's nbd: its devices made, reconnected, grown and taken away, by generic netlink.

Owns: the messages (include/uapi/linux/nbd-netlink.h) and what sysfs says of the devices. Invariant:
no device is touched that is not ours by its backend identifier ("curve:UUID"), which the kernel
checks too. A request that a killed process has not answered is sent again by the kernel, once the
device has another connection: it looks for such requests whenever one's time is up, hence the short
time, which means nothing else (without NBD_ATTR_TIMEOUT no connection is given up for it). Thread:
any; calls block, for a moment, and never for I/O to the device.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

from curve_py.errors import BusyError, CurveIoError, UnsupportedError

MAJOR = 43
BLOCK_BYTES = 4096
# How long I/O waits for an agent before it fails.
DEAD_CONNECTION_SECONDS = 600

_CONNECT, _DISCONNECT, _RECONFIGURE = 1, 2, 3
_VERSION = 1
_DISCONNECT_ON_CLOSE = 2
_LOOK_AGAIN_MS, _LOOK_AGAIN_MS_DEFAULT = 200, 30_000
_SOCKET_BYTES = 1 << 20
_TRIES_MAX = 100
_PAUSE_SECONDS = 0.02
_BLOCK = Path("/sys/block")
_IDENTITY = "curve:"


class _Message(genlmsg):  # type: ignore[misc]
    nla_map = (
        (1, "NBD_ATTR_INDEX", "uint32"),
        (2, "NBD_ATTR_SIZE_BYTES", "uint64"),
        (3, "NBD_ATTR_BLOCK_SIZE_BYTES", "uint64"),
        (4, "NBD_ATTR_TIMEOUT", "uint64"),
        (5, "NBD_ATTR_SERVER_FLAGS", "uint64"),
        (6, "NBD_ATTR_CLIENT_FLAGS", "uint64"),
        (7, "NBD_ATTR_SOCKETS", "sockets"),
        (8, "NBD_ATTR_DEAD_CONN_TIMEOUT", "uint64"),
        (10, "NBD_ATTR_BACKEND_IDENTIFIER", "asciiz"),
    )

    class sockets(nla):  # type: ignore[misc]
        nla_map = ((1, "NBD_SOCK_ITEM", "item"),)

        class item(nla):  # type: ignore[misc]
            nla_map = ((1, "NBD_SOCK_FD", "uint32"),)


class _AsyncSocket(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # we say it ourselves


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]
    async_class = _AsyncSocket


def missing() -> str:
    """Why there are no devices of this kind here, in a sentence; "" when there are."""
    if not Path("/sys/module/nbd").exists():
        return "The kernel's module nbd is not loaded."
    try:
        _ask(None, {})
    except UnsupportedError as error:
        return error.message
    except CurveIoError as error:
        return error.message
    return ""


def path_of(number: int) -> str:
    return f"/dev/nbd{number}"


def identity(number: int) -> str:
    """The UUID of the volume whose device this is; "" when it is free, or not one of ours."""
    try:
        text = (_BLOCK / f"nbd{number}" / "backend").read_text().strip()
    except OSError:
        return ""
    return text.removeprefix(_IDENTITY) if text.startswith(_IDENTITY) else ""


def size_bytes(number: int) -> int:
    try:
        return int((_BLOCK / f"nbd{number}" / "size").read_text()) * 512
    except (OSError, ValueError):
        return 0


def device_number(number: int) -> tuple[int, int]:
    """Major and minor; the kernel leaves minors free for partitions. Raises CurveIoError."""
    try:
        text = (_BLOCK / f"nbd{number}" / "dev").read_text()
    except OSError as error:
        raise CurveIoError(f"There is no {path_of(number)}: {error.strerror}.") from None
    major, _, minor = text.strip().partition(":")
    return int(major), int(minor)


def free_numbers() -> list[int]:
    """Of devices that nobody has, and then one that does not exist yet."""
    numbers = sorted(
        int(entry.name[3:]) for entry in _BLOCK.glob("nbd*") if entry.name[3:].isdigit()
    )
    free = [number for number in numbers if not (_BLOCK / f"nbd{number}" / "pid").exists()]
    return [*free, numbers[-1] + 1 if numbers else 0]


def connect(number: int, uuid: str, size: int, flags: int) -> int:
    """Makes the device; our end of its connection. `flags`: the protocol's transmission flags.
    Raises BusyError when somebody has it, CurveIoError, UnsupportedError.
    """
    fields = {
        "NBD_ATTR_SIZE_BYTES": size,
        "NBD_ATTR_BLOCK_SIZE_BYTES": BLOCK_BYTES,
        "NBD_ATTR_SERVER_FLAGS": flags,
        "NBD_ATTR_CLIENT_FLAGS": 0,
        "NBD_ATTR_DEAD_CONN_TIMEOUT": DEAD_CONNECTION_SECONDS,
    }
    ours, theirs = _pair()
    with theirs:
        try:
            _ask(_CONNECT, _named(number, uuid) | fields, theirs.fileno())
            _look_again_after(number, _LOOK_AGAIN_MS)
            _make_node(number)
        except BaseException:
            ours.close()
            raise
    return ours.detach()


def reconnect(number: int, uuid: str) -> int:
    """Another connection in place of one that has ended; our end of it. What was not answered on
    that one is sent again. Raises CurveIoError: it is not ours any more, or has a connection.
    """
    for _ in range(_TRIES_MAX):
        ours, theirs = _pair()
        with theirs:
            try:
                _ask(_RECONFIGURE, _named(number, uuid), theirs.fileno())
            except BaseException:
                ours.close()
                raise
        if not _is_at_end(ours):
            return ours.detach()
        # The kernel does not know yet that the other one has ended, and did not take this one.
        ours.close()
        time.sleep(_PAUSE_SECONDS)
    raise CurveIoError(f"{path_of(number)} has another connection.")


def resize(number: int, uuid: str, size: int) -> None:
    """Raises CurveIoError."""
    _ask(_RECONFIGURE, _named(number, uuid) | {"NBD_ATTR_SIZE_BYTES": size})


def goes_with_last_close(number: int, uuid: str, goes: bool) -> None:
    """Whether the device is to go when the last one closes it. Raises CurveIoError."""
    flags = _DISCONNECT_ON_CLOSE if goes else 0
    _ask(_RECONFIGURE, _named(number, uuid) | {"NBD_ATTR_CLIENT_FLAGS": flags})


def disconnect(number: int) -> None:
    """Also while it is open: all its I/O fails. Raises CurveIoError."""
    _ask(_DISCONNECT, {"NBD_ATTR_INDEX": number})


def restore(number: int) -> None:
    """After the device has gone: as others expect to find it."""
    with contextlib.suppress(CurveIoError):
        _look_again_after(number, _LOOK_AGAIN_MS_DEFAULT)


def _named(number: int, uuid: str) -> dict[str, Any]:
    return {"NBD_ATTR_INDEX": number, "NBD_ATTR_BACKEND_IDENTIFIER": _IDENTITY + uuid}


def _ask(command: int | None, attributes: dict[str, Any], descriptor: int = -1) -> None:
    """None: only looks whether there is somebody to ask."""
    connection = _Socket()
    try:
        try:
            connection.bind("nbd", _Message)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
            raise UnsupportedError(
                "The kernel's nbd does not answer: its module is not loaded, or this is not the "
                "machine's own network namespace.",
                "Try: modprobe nbd",
            ) from None
        if command is None:
            return
        message = _Message()
        message["cmd"], message["version"] = command, _VERSION
        message["attrs"] = list(attributes.items())
        if descriptor >= 0:
            item = {"attrs": [("NBD_SOCK_FD", descriptor)]}
            message["attrs"].append(("NBD_ATTR_SOCKETS", {"attrs": [("NBD_SOCK_ITEM", item)]}))
        flags = NLM_F_REQUEST | NLM_F_ACK
        connection.nlm_request(message, msg_type=connection.prid, msg_flags=flags)
    except NetlinkError as error:
        number = attributes.get("NBD_ATTR_INDEX")
        what = f"/dev/nbd{number}: {os.strerror(error.code)}."
        raise BusyError(what) if error.code == errno.EBUSY else CurveIoError(what) from None
    except OSError as error:
        raise CurveIoError(f"Netlink: {error.strerror or error}.") from None
    finally:
        connection.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for each in pair:
        # Whole requests and answers; as much as the system lets us have.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    return pair


def _is_at_end(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _look_again_after(number: int, milliseconds: int) -> None:
    try:
        (_BLOCK / f"nbd{number}" / "queue" / "io_timeout").write_text(f"{milliseconds}\n")
    except OSError as error:
        raise CurveIoError(
            f"The time limit of {path_of(number)} cannot be set: {error.strerror}.",
            "/sys must be writable for the agent.",
        ) from None


def _make_node(number: int) -> None:
    """In a container's /dev nobody else does."""
    path = Path(path_of(number))
    if path.exists():
        return
    try:
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(*device_number(number)))
    except FileExistsError:
        pass
    except OSError as error:
        raise CurveIoError(f"{path} cannot be made: {error.strerror}.") from None
