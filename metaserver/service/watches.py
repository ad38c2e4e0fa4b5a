"""Who waits for what to change. Thread: the asyncio loop.

A waiter looks at the state, and waits again if it does not like what it sees; so a wake-up too many
does no harm, and one too few cannot happen between two looks on one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from metaserver.domain.state import Changes


class Watches:
    """Wake-ups by volume, and for everything."""

    def __init__(self) -> None:
        self._of_volume: dict[int, set[asyncio.Event]] = {}
        self._of_all: set[asyncio.Event] = set()

    @contextlib.contextmanager
    def volume(self, volume_id: int) -> Iterator[asyncio.Event]:
        """An event that is set when the volume, the topology or the leadership changes."""
        event = asyncio.Event()
        events = self._of_volume.setdefault(volume_id, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events and self._of_volume.get(volume_id) is events:
                del self._of_volume[volume_id]

    @contextlib.contextmanager
    def everything(self) -> Iterator[asyncio.Event]:
        """An event that is set when anything changes."""
        event = asyncio.Event()
        self._of_all.add(event)
        try:
            yield event
        finally:
            self._of_all.discard(event)

    def notify(self, changes: Changes) -> None:
        if changes.topology:
            self.notify_all()
            return
        for volume_id in changes.volumes:
            for event in self._of_volume.get(volume_id, ()):
                event.set()
        if changes.volumes or changes.moves:
            self.notify_everything()

    def notify_all(self) -> None:
        for events in self._of_volume.values():
            for event in events:
                event.set()
        self.notify_everything()

    def notify_everything(self) -> None:
        """Those who wait for anything."""
        for event in self._of_all:
            event.set()
