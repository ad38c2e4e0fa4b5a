"""Events of a native thread on the asyncio side: drained whenever its descriptor is readable.

Owns: the watch on the descriptor, until told to stop. Must not know what the events are.
Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class NativeEvents:
    """One descriptor and whoever drains it."""

    def __init__(self, fileno: Callable[[], int]) -> None:
        self._fileno = fileno
        self._readable = asyncio.Event()
        self.stopped = False  # by `stop`, or by the drain that found the end

    async def run(self, stop: asyncio.Event, drain: Callable[[], Awaitable[None]]) -> None:
        """Until `stop` is set or `stopped` is. Raises what `drain` raises."""
        stopping = asyncio.create_task(self._stop_when(stop))
        try:
            self._arm()
            while not self.stopped:
                await self._readable.wait()
                self._readable.clear()
                await drain()
                self._arm()
        finally:
            self.stopped = True
            stopping.cancel()
            with contextlib.suppress(ValueError, OSError):
                asyncio.get_running_loop().remove_reader(self._fileno())

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.stopped = True
        self._readable.set()

    def _arm(self) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._fileno()

        def on_readable() -> None:
            loop.remove_reader(descriptor)  # until it has been drained: no spinning meanwhile
            self._readable.set()

        loop.add_reader(descriptor, on_readable)
