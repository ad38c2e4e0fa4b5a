"""The driver's side of the helper process (process.py).

Owns: the process, started before anything of gRPC is, and ended with the driver. Invariant: a
command whose caller does not wait any more is still answered to nobody; when the helper dies every
call fails and the driver is to end, so that it is started again as a whole. Thread: the asyncio
loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from itertools import count
from typing import Any

import grpc

from csi_driver.failures import CsiError
from csi_driver.mounter.mount_table import Mount

QUICK_SECONDS = 30.0
_LONG_SECONDS = 600.0  # mkfs, fsck and growing of large file systems; the caller is gone by then
_TRIM_SECONDS = 60.0  # of one part; the volume is held meanwhile
_LINE_BYTES_MAX = 16 << 20  # the mount table of a busy node


class MountError(CsiError):
    """What a command said; `kind` as in commands.CommandError."""

    def __init__(self, kind: str, message: str) -> None:
        status = {
            "timeout": grpc.StatusCode.DEADLINE_EXCEEDED,
            "busy": grpc.StatusCode.FAILED_PRECONDITION,
            "occupied": grpc.StatusCode.FAILED_PRECONDITION,
            "refused": grpc.StatusCode.FAILED_PRECONDITION,
            "privilege": grpc.StatusCode.FAILED_PRECONDITION,
        }.get(kind, grpc.StatusCode.INTERNAL)
        super().__init__(status, message)
        self.kind = kind


class Mounter:
    """Made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._writer = writer
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._hanging: dict[int, str] = {}  # commands that nobody waits for any more
        self.ended = asyncio.Event()
        self._receiving = asyncio.create_task(self._receive(reader))

    @classmethod
    async def start(cls) -> Mounter:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "csi_driver.mounter.process",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES_MAX)
        return cls(process, reader, writer)

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                self._hanging.pop(answer["id"], None)
                future = self._waiting.pop(answer["id"], None)
                if future is None or future.done():
                    continue
                if "error" in answer:
                    error = answer["error"]
                    future.set_exception(MountError(error["kind"], error["message"]))
                else:
                    future.set_result(answer["result"])
        except (OSError, ValueError):
            pass
        self.ended.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(MountError("failed", "The mount helper has ended."))

    async def _call(self, command: str, wait: float = QUICK_SECONDS, /, **arguments: Any) -> Any:
        if self.ended.is_set():
            raise MountError("failed", "The mount helper has ended.")
        text = json.dumps([command, arguments])
        if text in self._hanging.values():  # or each retry would hang one more thread
            raise MountError("timeout", f"An earlier {command} of the same has not ended yet.")
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        request = {"id": number, "command": command, "arguments": arguments}
        self._writer.write(json.dumps(request).encode() + b"\n")
        try:
            return await asyncio.wait_for(future, wait)
        except TimeoutError:
            self._hanging[number] = text
            raise MountError("timeout", f"{command} has not ended after {wait:g} s.") from None
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Ends the helper; what hangs in it is left to the kernel."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        try:
            await asyncio.wait_for(self._process.wait(), 5.0)
        except TimeoutError:
            self._process.kill()
        await self._receiving

    # --- The commands, typed --------------------------------------------------------------------

    async def probe(self, device: str) -> tuple[str, str]:
        """Type and UUID of what is on it; empty for nothing."""
        found = await self._call("probe", device=device, seconds=QUICK_SECONDS)
        return found["type"], found["uuid"]

    async def make_file_system(self, device: str, kind: str, uuid: str) -> None:
        await self._call(
            "make_file_system",
            _LONG_SECONDS + 5,
            device=device,
            kind=kind,
            uuid=uuid,
            seconds=_LONG_SECONDS,
        )

    async def check(self, device: str, kind: str) -> None:
        await self._call(
            "check", _LONG_SECONDS + 5, device=device, kind=kind, seconds=_LONG_SECONDS
        )

    async def mount(self, source: str, target: str, kind: str, options: list[str]) -> None:
        await self._call(
            "mount",
            _LONG_SECONDS,  # a journal may have to be replayed
            source=source,
            target=target,
            kind=kind,
            options=options,
            seconds=_LONG_SECONDS - 5,
        )

    async def bind(self, source: str, target: str, *, read_only: bool) -> None:
        await self._call(
            "bind",
            source=source,
            target=target,
            read_only=read_only,
            seconds=QUICK_SECONDS / 2 - 1,
        )

    async def unmount(self, target: str, *, lazily: bool = False) -> None:
        await self._call("unmount", _LONG_SECONDS, target=target, lazily=lazily)

    async def grow(self, device: str, kind: str, target: str) -> None:
        await self._call(
            "grow",
            _LONG_SECONDS + 5,
            device=device,
            kind=kind,
            target=target,
            seconds=_LONG_SECONDS,
        )

    async def grow_unmounted(self, device: str) -> bool:
        """ext4, where it could not when it is mounted. Whether it did."""
        done: bool = await self._call(
            "grow_unmounted", _LONG_SECONDS + 5, device=device, seconds=_LONG_SECONDS / 2
        )
        return done

    async def may_grow_ext4(self) -> bool:
        found: bool = await self._call("may_grow_ext4")
        return found

    async def trim(self, target: str, offset: int, length: int | None) -> int:
        done: int = await self._call(
            "trim",
            _TRIM_SECONDS + 5,
            target=target,
            offset=offset,
            length=length,
            seconds=_TRIM_SECONDS,
        )
        return done

    async def trim_step(self, target: str, kind: str) -> int:
        found: int = await self._call(
            "trim_step", target=target, kind=kind, seconds=QUICK_SECONDS / 2
        )
        return found

    async def usage(self, target: str) -> dict[str, int]:
        found: dict[str, int] = await self._call("usage", 10.0, target=target)
        return found

    async def look(self, path: str, *, follow: bool = True) -> tuple[str, tuple[int, int], int]:
        """Kind, device number and size of what is at a path; `follow`: where a link leads."""
        found = await self._call("look", 10.0, path=path, follow=follow)
        return found["kind"], (found["device"][0], found["device"][1]), found["size_bytes"]

    async def canonical(self, path: str) -> str:
        found: str = await self._call("canonical", path=path)
        return found

    async def make_directory(self, path: str) -> None:
        await self._call("make_directory", path=path)

    async def make_file(self, path: str) -> None:
        await self._call("make_file", path=path)

    async def remove(self, path: str) -> None:
        await self._call("remove", path=path)

    async def mounts(self) -> list[Mount]:
        return [
            Mount(
                (each["device"][0], each["device"][1]),
                each["root"],
                each["target"],
                tuple(each["options"]),
                each["file_system"],
                each["source"],
            )
            for each in await self._call("mounts")
        ]

    async def backing_file(self, device: tuple[int, int]) -> str:
        found: str = await self._call("backing_file", major=device[0], minor=device[1])
        return found
