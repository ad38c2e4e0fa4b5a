"""The whole state as a stream of lines, written and read in slices
(docs/formats/metaserver-log.md).

Invariants: the same log gives the same bytes (R16); `Capture` is a consistent view though the state
goes on changing, because records are frozen and tables are copied shallowly; neither side works
longer than a slice at a time. Thread: the asyncio loop; the caller breathes between slices.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

from metaserver.domain.codec import CodecError, dump_json, from_tagged, to_tagged
from metaserver.domain.entities import (
    Chunkserver,
    Cluster,
    Copyset,
    Deletion,
    FinishedMove,
    Move,
    Node,
    Pool,
    Volume,
)
from metaserver.domain.state import Counters, MetaState, Remembered

FORMAT = "curve-metaserver-snapshot"
VERSION = 4
# 1: without moves; 2: without labels, content, publications, nodes; 3: without moves that stalled
VERSIONS_READ = (1, 2, 3, 4)
SLICE_RECORDS = 32


class Capture:
    """A consistent view of `state` as of now. Costs a few shallow copies."""

    def __init__(self, state: MetaState) -> None:
        self._counters = dataclasses.asdict(state.counters)
        self._cluster = [state.cluster] if state.cluster else []
        self._tables: list[dict[Any, Any]] = [
            dict(state.chunkservers),
            dict(state.pools),
            dict(state.copysets),
            dict(state.volumes),
            dict(state.deletions),
            dict(state.nodes),
            dict(state.moves),
            dict(state.finished_moves),
        ]
        self._remembered = dict(state.remembered)
        self._remembered_order = list(state.remembered_order)

    def slices(self) -> Iterator[bytes]:
        """The bytes, a few ms of work at a time."""
        lines: list[bytes] = []
        count = 0
        for line in self._lines():
            lines.append(line)
            count += 1
            if len(lines) == SLICE_RECORDS:
                yield b"\n".join(lines) + b"\n"
                lines.clear()
        lines.append(dump_json({"end": count}))
        yield b"\n".join(lines) + b"\n"

    def _lines(self) -> Iterator[bytes]:
        yield dump_json({"format": FORMAT, "version": VERSION, "counters": self._counters})
        for record in self._records():
            yield dump_json(to_tagged(record))
        for request_id in self._remembered_order:
            remembered = self._remembered[request_id]
            yield dump_json(
                {
                    "request": request_id.hex(),
                    "command": remembered.command,
                    "result": to_tagged(remembered.result),
                }
            )

    def _records(self) -> Iterator[Any]:
        yield from self._cluster
        for table in self._tables:
            yield from table.values()


class Restorer:
    """Builds a state from the bytes of a snapshot, fed in pieces.

    Raises CodecError for what it does not know.
    """

    def __init__(self) -> None:
        self._state = MetaState()
        self._rest = b""
        self._count = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[None]:
        """Yields after every slice of work."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for number, line in enumerate(lines, 1):
            self._line(line)
            if number % SLICE_RECORDS == 0:
                yield

    def finish(self) -> MetaState:
        if not self._ended or self._rest:
            raise CodecError("The snapshot is cut off.")
        return self._state

    def _line(self, line: bytes) -> None:
        if self._ended:
            raise CodecError("The snapshot goes on behind its end.")
        try:
            value = json.loads(line)
        except ValueError:
            raise CodecError(f"Line {self._count + 1} of the snapshot is not JSON.") from None
        if not isinstance(value, dict):
            raise CodecError(f"Line {self._count + 1} of the snapshot is not an object.")
        if self._count == 0:
            self._header(value)
        elif "end" in value:
            if value["end"] != self._count:
                raise CodecError("The snapshot lacks lines.")
            self._ended = True
            return
        elif "request" in value:
            self._request(value)
        else:
            self._put(from_tagged(value))
        self._count += 1

    def _header(self, value: dict[str, Any]) -> None:
        if value.get("format") != FORMAT or value.get("version") not in VERSIONS_READ:
            raise CodecError(f"This is not a metaserver's snapshot of a version up to {VERSION}.")
        counters = value.get("counters")
        names = {field.name for field in dataclasses.fields(Counters)}
        if not isinstance(counters, dict) or counters.keys() != names:
            raise CodecError("The snapshot has other counters than this program.")
        self._state.counters = Counters(**counters)

    def _request(self, value: dict[str, Any]) -> None:
        request_id = bytes.fromhex(value["request"])
        remembered = Remembered(value["command"], from_tagged(value["result"]))
        self._state.remembered[request_id] = remembered
        self._state.remembered_order.append(request_id)

    def _put(self, record: Any) -> None:
        state = self._state
        match record:
            case Cluster():
                state.cluster = record
            case Chunkserver():
                state.chunkservers[record.store_id] = record
            case Pool():
                state.pools[record.pool_id] = record
            case Copyset():
                state.copysets[record.copyset_id] = record
            case Volume():
                state.put_volume(record)
            case Deletion():
                state.deletions[record.volume_id] = record
            case Node():
                state.nodes[record.node_id] = record
            case Move():
                state.moves[record.copyset_id] = record
            case FinishedMove():
                state.finished_moves[record.move_id] = record
            case _:
                raise CodecError(f"A {type(record).__name__} does not belong into a snapshot.")


def restore(pieces: Iterable[bytes]) -> MetaState:
    """At once: for tools and tests."""
    restorer = Restorer()
    for piece in pieces:
        for _ in restorer.feed(piece):
            pass
    return restorer.finish()
