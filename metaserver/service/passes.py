"""How the leader's duties go over the state again and again. Thread: the asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from curve_py.errors import CurveError
from metaserver.service.watches import Watches

_log = logging.getLogger(__name__)

PASS_SECONDS = 0.5
# When nothing is wanted there is nothing to try again, and what changes says so: only a safeguard.
_IDLE_SECONDS = 10.0


async def wait_for(changed: asyncio.Event, *, unfinished: bool) -> None:
    """Until something changes, or, where work is `unfinished`, for a pass."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PASS_SECONDS if unfinished else _IDLE_SECONDS):
            await changed.wait()


async def for_each(
    watches: Watches,
    wanted: Callable[[], list[int]],
    work: Callable[[int], Awaitable[bool]],
    at_once: int,
) -> None:
    """Runs `work` for whatever is wanted, a bounded number at once, until cancelled.

    `work` returns whether it got anywhere; if not, it is tried again with the next pass.
    """
    running: dict[int, asyncio.Task[bool]] = {}
    try:
        with watches.everything() as changed:

            def ended(key: int, task: asyncio.Task[bool]) -> None:
                running.pop(key, None)
                if not task.cancelled() and task.result():
                    changed.set()

            while True:
                changed.clear()
                keys = wanted()
                for key in keys:
                    if len(running) >= at_once:
                        break
                    if key not in running:
                        task = asyncio.create_task(_guarded(work, key))
                        running[key] = task
                        task.add_done_callback(partial(ended, key))
                await wait_for(changed, unfinished=bool(keys))
    finally:
        for task in list(running.values()):
            task.cancel()


async def _guarded(work: Callable[[int], Awaitable[bool]], key: int) -> bool:
    try:
        return await work(key)
    except CurveError as error:
        _log.info("to be done again", extra={"of": key, "error": str(error)})
    except Exception:
        _log.exception("a task of the leader failed", extra={"of": key})
    return False
