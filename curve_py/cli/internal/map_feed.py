"""curve internal map-feed: attaches a volume and writes its maps, for a native program beside us.

Each map is a little-endian u32 with its length, then its bytes (docs/formats/volume-map.md), first
the one of the attach, then every newer one. The attachment ends with standard input, with standard
output, or with this process; its loss ends the process with exit code 1.
"""

from __future__ import annotations

import os
import select
import struct
import threading
from pathlib import Path
from typing import Annotated

import typer

from curve_py.cli.options import ReadOnlyOption, SharedOption
from curve_py.client.attachment import (
    ATTACH_SECONDS,
    MapWatcher,
    attach_request,
    attached,
    detach,
)
from curve_py.client.cluster import Cluster
from curve_py.client.records import AttachMode
from curve_py.errors import FencedError

_POLL_MS = 200


def run(
    volume: str,
    cluster: Annotated[Path | None, typer.Option("--cluster", help="Its directory.")] = None,
    shared: SharedOption = False,
    read_only: ReadOnlyOption = False,
) -> None:
    """Attach VOLUME and write its maps to standard output."""
    mode = AttachMode.EXCLUSIVE
    if read_only:
        mode = AttachMode.READ_ONLY
    elif shared:
        mode = AttachMode.SHARED
    with Cluster.connect(cluster) as connected:
        holder = f"{os.uname().nodename} pid {os.getppid()} map-feed"[:128]
        request = attach_request(volume, mode, holder, False)
        attachment = attached(connected.client.call("AttachVolume", request, ATTACH_SECONDS))
        lost: list[str] = []
        ended = threading.Event()

        def write(encoded: bytes) -> None:
            try:
                _write_all(struct.pack("<I", len(encoded)) + encoded)
            except OSError:
                ended.set()

        def lose(reason: str) -> None:
            lost.append(reason)
            ended.set()

        write(attachment.encoded_map)
        watcher = MapWatcher(connected.metaservers, connected.secret, attachment, write, lose)
        try:
            _wait_for_end(ended)
        finally:
            watcher.close()
            if not lost:
                detach(connected.client, attachment)
    if lost:
        raise FencedError(lost[0])


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _wait_for_end(ended: threading.Event) -> None:
    """Until standard input ends or standard output has nobody who reads."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    poll.register(1, select.POLLERR)
    while not ended.is_set():
        for descriptor, event in poll.poll(_POLL_MS):
            if descriptor == 1 and event & (select.POLLERR | select.POLLHUP):
                return
            if descriptor == 0:
                try:
                    if not os.read(0, 4096):
                        return
                except OSError:
                    return
