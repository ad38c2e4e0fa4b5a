"""An attachment of a volume, and the thread that follows its map.

Owns: attach, watch, detach (docs/formats/control-plane.md). Each newer map goes to a callback; so
does the loss of the attachment (R12). While no metaserver answers the last map stays in use: I/O
does not need them. Thread: the callbacks run on the watcher's thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curve_py.client.records import MODE_TO_PROTO, AttachMode
from curve_py.errors import CurveError, FencedError, NotFoundError
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient

_log = logging.getLogger(__name__)
ATTACH_SECONDS = 60.0
DETACH_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_RETRY_SECONDS_MAX = 2.0


def default_holder() -> str:
    """Host, pid and program, for people."""
    program = os.path.basename(sys.argv[0]) or "python"
    return f"{socket.gethostname()} pid {os.getpid()} {program}"[:128]


@dataclass(frozen=True, slots=True)
class Attached:
    """What an attach was answered with."""

    volume_id: int
    attachment_id: int
    epoch: int
    map_version: int
    encoded_map: bytes


def attach_request(
    name: str, mode: AttachMode, holder: str | None, refuse_when_attached: bool
) -> pb.AttachVolumeRequest:
    """What an attach asks for; agents add more."""
    return pb.AttachVolumeRequest(
        name=name,
        mode=MODE_TO_PROTO[mode],
        holder=holder or default_holder(),
        refuse_when_attached=refuse_when_attached,
    )


def attached(answer: pb.AttachVolumeResponse) -> Attached:
    return Attached(
        answer.attachment.volume_id,
        answer.attachment.id,
        answer.attachment.epoch,
        answer.map.map_version,
        answer.map.encoded,
    )


class MapWatcher:
    """Follows the map of one attachment until `close`."""

    def __init__(
        self,
        addresses: Sequence[str],
        secret: bytes,
        attachment: Attached,
        on_map: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._attachment = attachment
        self._known_version = attachment.map_version
        self._on_map, self._on_lost = on_map, on_lost
        # A client of its own: closing it ends the stream that the thread waits for.
        self._client = MetaClient(addresses, secret)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="curve-map-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent; waits for the thread. Not from a callback."""
        self._stop.set()
        self._client.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(10.0)

    def _run(self) -> None:
        pause = _RETRY_SECONDS
        while not self._stop.is_set():
            try:
                if self._follow():
                    return
                pause = _RETRY_SECONDS
            except (FencedError, NotFoundError) as error:
                self._on_lost(error.message)
                return
            except CurveError as error:
                if not self._stop.is_set():
                    _log.debug("the map is watched anew", extra={"error": str(error)})
            except Exception:  # the channel was closed under the stream
                if not self._stop.is_set():
                    _log.exception("watching the map failed")
            self._stop.wait(pause)
            pause = min(pause * 2, _RETRY_SECONDS_MAX)

    def _follow(self) -> bool:
        """One stream; True when the attachment is lost."""
        request = pb.WatchVolumeMapRequest(
            volume_id=self._attachment.volume_id,
            attachment_id=self._attachment.attachment_id,
            known_map_version=self._known_version,
        )
        events = self._client.stream("WatchVolumeMap", request)
        with contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                if self._stop.is_set():
                    return True
                if event.HasField("lost"):
                    self._on_lost(event.lost.reason)
                    return True
                if event.map.map_version > self._known_version:
                    self._on_map(event.map.encoded)
                    self._known_version = event.map.map_version
        return False


def detach(client: MetaClient, attachment: Attached) -> None:
    """Gives the attachment up. Not being able to is no error: the next attach fences it."""
    request = pb.DetachVolumeRequest(
        volume_id=attachment.volume_id, attachment_id=attachment.attachment_id
    )
    with contextlib.suppress(CurveError):
        client.call("DetachVolume", request, DETACH_SECONDS)
