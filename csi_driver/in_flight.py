"""What is being worked on: one call at a time for each volume (and for each name to be created).

Invariant: a key is held until the work under it has really ended, also when its caller has gone;
no call ever waits for a key: who comes meanwhile is told ABORTED and tries again later. So there is
no lock that anybody could hang on. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from csi_driver.failures import aborted

_LOOK_SECONDS = 0.1


class InFlight:
    """The keys under work."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    async def released(self, key: str) -> None:
        """Looks for it now and then: for work in the background, never for a call."""
        while key in self._held:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Raises CsiError (ABORTED) while another call has it."""
        if key in self._held:
            raise aborted(f"Another call for {key} has not ended yet; try again.")
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)
