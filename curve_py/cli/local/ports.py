"""Free loopback ports for a new cluster. They are written down and kept over restarts, so they come
from below the range that the kernel gives to outgoing connections. May block.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Container
from pathlib import Path

from curve_py.errors import UnavailableError

LOOPBACK = "127.0.0.1"
_FIRST_PORT = 10_000


def free_addresses(count: int, taken: Container[str] = ()) -> list[str]:
    """That many different HOST:PORT, free now and not `taken` by what does not listen yet. Raises
    UnavailableError.
    """
    numbers = list(range(_FIRST_PORT, _first_ephemeral_port()))
    random.SystemRandom().shuffle(numbers)
    found: list[str] = []
    for port in numbers:
        if len(found) == count:
            break
        address = f"{LOOPBACK}:{port}"
        if address not in taken and _is_free(port):
            found.append(address)
    if len(found) < count:
        raise UnavailableError(f"There are no {count} free ports on {LOOPBACK}.")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _first_ephemeral_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
