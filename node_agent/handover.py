"""How descriptors outlive the agent's worker: what holder and worker say to each other.

A pair of SOCK_SEQPACKET sockets; a message is one JSON object, with at most one descriptor. Worker
to holder: put (key, with a descriptor: keep it), drop (key), get (send me all there are), serving
(it has started well). Holder to worker, after get: held (key, with a descriptor) for each, then
end. What was sent is the kernel's to deliver: a worker that is killed right after a put has put it.
Only the standard library: the holder stays small. Blocking.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

ENV_DESCRIPTOR = "CURVE_AGENT_HOLDER"
_MESSAGE_BYTES_MAX = 4096


def send(connection: socket.socket, message: dict[str, Any], descriptor: int = -1) -> None:
    """Raises OSError when the other side is gone."""
    data = json.dumps(message).encode()
    rights = []
    if descriptor >= 0:
        packed = array.array("i", [descriptor])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed.tobytes())]
    connection.sendmsg([data], rights)


def receive(connection: socket.socket) -> tuple[dict[str, Any], int] | None:
    """A message and its descriptor (-1: none); None at the end. Raises OSError."""
    room = socket.CMSG_SPACE(array.array("i").itemsize)
    data, rights, _, _ = connection.recvmsg(_MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    descriptor = -1
    for level, kind, content in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptor = array.array("i", content[:4])[0]
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, descriptor


class Holder:
    """The worker's side. Without a holder (a worker that was started by itself) nothing is kept."""

    def __init__(self, connection: socket.socket | None) -> None:
        self._connection = connection
        self._is_lost = False

    @classmethod
    def inherited(cls) -> Holder:
        """The one that started this process."""
        text = os.environ.pop(ENV_DESCRIPTOR, "")
        return cls(socket.socket(fileno=int(text)) if text else None)

    @property
    def is_there(self) -> bool:
        return self._connection is not None and not self._is_lost

    def held(self) -> dict[str, int]:
        """What earlier workers have put, by key; the descriptors are the caller's."""
        found: dict[str, int] = {}
        if self._connection is None:
            return found
        send(self._connection, {"is": "get"})
        while answer := receive(self._connection):
            message, descriptor = answer
            if message["is"] == "end":
                break
            found[message["key"]] = descriptor
        return found

    def put(self, key: str, descriptor: int) -> None:
        self._say({"is": "put", "key": key}, descriptor)

    def drop(self, key: str) -> None:
        self._say({"is": "drop", "key": key})

    def serving(self) -> None:
        self._say({"is": "serving"})

    def watch(self, loop: asyncio.AbstractEventLoop, lost: Callable[[], None]) -> None:
        """After held(): `lost` is called when the holder has ended."""
        connection = self._connection
        if connection is None:
            return

        def listen() -> None:
            with contextlib.suppress(OSError):
                if receive(connection) is not None:
                    return  # it says nothing unasked
            loop.remove_reader(connection.fileno())
            self._is_lost = True
            lost()

        loop.add_reader(connection.fileno(), listen)

    def _say(self, message: dict[str, Any], descriptor: int = -1) -> None:
        if self._connection is None or self._is_lost:
            return
        try:
            send(self._connection, message, descriptor)
        except OSError:  # this worker goes on, and cannot be replaced any more
            self._is_lost = True
