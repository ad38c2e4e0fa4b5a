"""From the start of a service's process to its end: signals, one-sentence errors, exit codes.

A service is an async function that runs until `stop` is set; SIGTERM and SIGINT set it. A second
signal ends the process at once. Exit code 0 after a stop, 1 after an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from curve_py.errors import CurveError

_log = logging.getLogger(__name__)
Service = Callable[[asyncio.Event], Awaitable[None]]


def fail(program: str, error: CurveError) -> int:
    """Prints the sentence and its remedy; returns the exit code."""
    print(f"{program}: {error.message}", file=sys.stderr)
    if error.remedy:
        print(f"{program}: {error.remedy}", file=sys.stderr)
    return 1


def run_service(program: str, service: Service) -> int:
    """Runs until stopped; returns the exit code."""
    try:
        asyncio.run(_run(service))
    except CurveError as error:
        _log.critical(error.message, extra={"remedy": error.remedy})
        return fail(program, error)
    except OSError as error:
        return fail(program, CurveError(f"{error.strerror or error}: {error.filename or ''}."))
    return 0


async def _run(service: Service) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        _log.info("stopping", extra={"signal": signal.Signals(number).name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await service(stop)
