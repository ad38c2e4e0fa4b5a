"""The state machine on top of the raft node: proposals in, committed commands applied in order.

Owns: the MetaState, the tickets that wait, whether this node serves as leader, snapshots.
Invariants: a change is answered only after it is committed and applied here (R16); a node serves as
leader only once everything committed before its term is applied; a proposal of unknown fate is
answered NOT_LEADER, and its retry is recognised by its request id. The loop is never held longer
than a slice. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from curve_py.errors import (
    BusyError,
    CorruptError,
    CurveError,
    CurveTimeoutError,
    InternalError,
    InvalidError,
    NoSpaceError,
    NotLeaderError,
    UnavailableError,
)
from curve_py.service.native_events import NativeEvents
from metaserver.domain.codec import CodecError, encode_command
from metaserver.domain.commands import Command
from metaserver.domain.entities import Result
from metaserver.domain.ports import (
    COMMAND_BYTES_MAX,
    Committed,
    InstallSnapshot,
    LeaderChanged,
    ProposalFailed,
    QueueFullError,
    RaftEvent,
    RaftNode,
    ReadFailed,
    ReadReady,
    SnapshotWanted,
    Stopped,
)
from metaserver.domain.snapshot import Capture, Restorer
from metaserver.domain.state import MetaState
from metaserver.service.watches import Watches

_log = logging.getLogger(__name__)

EVENTS_PER_TURN = 32
SUBMIT_SECONDS = 10.0
_SNAPSHOT_PIECE_BYTES = 64 * 1024
_SNAPSHOT_RETRY_SECONDS = 3.0
_DUTY_RESTART_SECONDS = 1.0
_LEAD_RETRY_SECONDS = 0.02
_HANDING_OVER_SECONDS = 1.0  # what may pass until another leads
_HAND_OVER_AGAIN_SECONDS = 10.0

Duty = Callable[[], Awaitable[None]]


class Replicator:
    """One per process.

    `run` drives it; everything else is called from handlers on the same loop.
    """

    def __init__(self, node: RaftNode, leader_addresses: dict[bytes, str]) -> None:
        self.state = MetaState()
        self.watches = Watches()
        self.applied_index = 0
        self.applied_term = 0
        self.snapshot_index = 0
        self.snapshot_failure = ""  # why the last one could not be written, "" if it was
        self.duties: Sequence[Duty] = ()
        self._node = node
        self._leader_addresses = leader_addresses
        self._leader_id: bytes | None = None
        self._leader_term = 0  # term in which this node leads, 0: it does not
        self._serving = False
        self._proposals: dict[int, asyncio.Future[Result]] = {}
        self._reads: dict[int, asyncio.Future[None]] = {}
        self._events = NativeEvents(node.fileno)
        self._started = False
        self._leading: asyncio.Task[None] | None = None
        self._snapshotting: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._handing_over_until = self._hand_over_after = 0.0
        self._handed_over = 0

    # --- Asking ---------------------------------------------------------------------------------

    @property
    def is_serving(self) -> bool:
        """This node leads and has applied all that was committed before."""
        return self._serving

    @property
    def leader_id(self) -> bytes | None:
        return self._leader_id

    def leader_address(self) -> str:
        """gRPC address of the leader; "" when unknown."""
        return self._leader_addresses.get(self._leader_id, "") if self._leader_id else ""

    def require_leader(self) -> None:
        if self._serving:
            return
        if self._events.stopped:
            raise UnavailableError("This metaserver is shutting down.")
        if self._leader_term:
            raise UnavailableError("This metaserver has just been elected and is catching up.")
        address = self.leader_address()
        where = f"{address} leads" if address else "no leader is known now"
        raise NotLeaderError(f"This metaserver does not lead: {where}.", leader_address=address)

    async def submit(self, command: Command) -> Result:
        """Commits `command` and returns what came of it. Raises CurveError."""
        self.require_leader()
        if command.request_id and command.request_id in self.state.remembered:
            return self.state.execute(command)  # changes nothing: it is answered from memory
        data = encode_command(command)
        if len(data) > COMMAND_BYTES_MAX:
            raise InvalidError(f"The request is too large: {len(data)} bytes as a command.")
        try:
            ticket = self._node.propose(data)
        except QueueFullError:
            raise BusyError("The metaserver's queue is full.", "Try again.") from None
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._proposals[ticket] = future
        try:
            async with asyncio.timeout(SUBMIT_SECONDS):
                return await future
        except TimeoutError:
            raise CurveTimeoutError(
                "No majority of the metaservers confirmed the change in time.",
                "It may still happen: ask again with the same request id.",
            ) from None
        finally:
            self._proposals.pop(ticket, None)

    async def read_barrier(self) -> MetaState:
        """The state, at least as new as anything answered before this call. Raises CurveError."""
        self.require_leader()
        await self._read_index()
        self.require_leader()
        return self.state

    async def _read_index(self) -> None:
        try:
            ticket = self._node.read_index()
        except QueueFullError:
            raise BusyError("The metaserver's queue is full.", "Try again.") from None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reads[ticket] = future
        try:
            async with asyncio.timeout(SUBMIT_SECONDS):
                await future
        except TimeoutError:
            raise CurveTimeoutError("No majority of the metaservers confirmed the read.") from None
        finally:
            self._reads.pop(ticket, None)

    # --- Running --------------------------------------------------------------------------------

    def start(self) -> None:
        """The native node begins to take part. Raises CurveError."""
        self._started = True
        self._node.start()

    async def close(self) -> None:
        """Waits for the native node to end. Idempotent."""
        started, self._started = self._started, False
        self._closing.set()
        if self._snapshotting is not None:
            await self._snapshotting  # its thread uses the node
        if started:
            await asyncio.to_thread(self._node.stop)

    async def run(self, stop: asyncio.Event) -> None:
        """From `start` until `stop` is set. Raises CurveError when the node cannot go on."""
        try:
            await self._events.run(stop, self._drain)
        finally:
            await self._step_down()

    async def _drain(self) -> None:
        while not self._events.stopped and (events := self._node.poll(EVENTS_PER_TURN)):
            for event in events:
                await self._handle(event)
            self.watches.notify(self.state.changes.take())
            await asyncio.sleep(0)

    async def _handle(self, event: RaftEvent) -> None:
        match event:
            case Committed():
                self._apply(event)
            case ProposalFailed(ticket=ticket, reason=reason):
                future = self._proposals.pop(ticket, None)
                log_is_full = reason == "not_leader" and self._serving and self.snapshot_failure
                if log_is_full and not self._hand_over():
                    self._refuse(future)
                else:
                    # Lost or never taken: both are answered alike, since a retry is idempotent.
                    self._fail(future)
            case ReadReady(ticket=ticket):
                read = self._reads.pop(ticket, None)
                if read is not None and not read.done():
                    read.set_result(None)
            case ReadFailed(ticket=ticket):
                self._fail(self._reads.pop(ticket, None))
            case LeaderChanged():
                await self._leader_changed(event)
            case InstallSnapshot():
                await self._install(event)
            case SnapshotWanted():
                if self._snapshotting is None or self._snapshotting.done():
                    self._snapshotting = asyncio.create_task(self._make_snapshot())
            case Stopped(error=error):
                self._events.stopped = True
                if error:
                    raise InternalError(f"The metaserver's log stopped: {error}")

    def _apply(self, entry: Committed) -> None:
        if entry.index <= self.applied_index:
            raise InternalError(
                f"Log entry {entry.index} came again after {self.applied_index} was applied."
            )
        result: Result | None = None
        if entry.command:
            try:
                result = self.state.apply(entry.command)
            except CodecError as error:
                raise CorruptError(
                    f"Log entry {entry.index} cannot be applied: {error}",
                    "Start a version of the metaserver that knows it.",
                ) from None
        self.applied_index, self.applied_term = entry.index, entry.term
        future = self._proposals.pop(entry.ticket, None) if entry.ticket else None
        if future is not None and result is not None and not future.done():
            future.set_result(result)

    def _hand_over(self) -> bool:
        """It leads and took no entry, because its log is full and a snapshot cannot be written:
        another may have the space. Whether one has been asked to lead.

        To the one that lags least, then the others in turn; not again at once, so that of
        metaservers that are all full each refuses, and none hands over for ever.
        """
        now = asyncio.get_running_loop().time()
        if now < self._handing_over_until:
            return True
        others = sorted((lag, node_id) for node_id, lag in self._node.status().lag_entries)
        if not others or now < self._hand_over_after:
            return False
        heir = others[self._handed_over % len(others)][1]
        self._handed_over += 1
        self._handing_over_until = now + _HANDING_OVER_SECONDS
        self._hand_over_after = now + _HAND_OVER_AGAIN_SECONDS
        _log.warning(
            "the log is full; another is to lead",
            extra={"heir": heir, "error": self.snapshot_failure},
        )
        self._node.transfer(heir)
        return True

    def _refuse(self, future: asyncio.Future[Result] | None) -> None:
        """Nobody else is to be asked for now."""
        if future is not None and not future.done():
            future.set_exception(
                NoSpaceError(
                    f"The metaserver's log is full: {self.snapshot_failure}",
                    "Free some space there; it goes on by itself.",
                )
            )

    def _fail(self, future: asyncio.Future[Result] | asyncio.Future[None] | None) -> None:
        if future is None or future.done():
            return
        address = self.leader_address() if not self._leader_term else ""
        future.set_exception(
            NotLeaderError("The leader changed meanwhile.", leader_address=address)
        )

    # --- Leading --------------------------------------------------------------------------------

    async def _leader_changed(self, event: LeaderChanged) -> None:
        self._leader_id = event.leader_id
        if event.is_leader and self._leader_term == event.term:
            return
        await self._step_down()
        if event.leader_id is not None:
            _log.info("leader changed", extra={"term": event.term, "leader": event.leader_id})
        if event.is_leader:
            self._leader_term = event.term
            self._leading = asyncio.create_task(self._lead())

    async def _step_down(self) -> None:
        self._leader_term = 0
        self._serving = False
        for proposal in self._proposals.values():
            self._fail(proposal)
        for read in self._reads.values():
            self._fail(read)
        self._proposals.clear()
        self._reads.clear()
        leading, self._leading = self._leading, None
        if leading is not None:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
        self.watches.notify_all()

    async def _lead(self) -> None:
        """Serves as leader until cancelled, with the duties that only a leader has."""
        while True:
            try:
                await self._read_index()
                break
            except CurveError:
                await asyncio.sleep(_LEAD_RETRY_SECONDS)
        self._serving = True
        self.watches.notify_all()
        async with asyncio.TaskGroup() as group:
            for duty in self.duties:
                group.create_task(self._keep_up(duty))

    async def _keep_up(self, duty: Duty) -> None:
        while True:
            try:
                await duty()
                return
            except NotLeaderError:
                await asyncio.sleep(_LEAD_RETRY_SECONDS)
            except CurveError as error:
                _log.warning("a duty is tried again", extra={"error": str(error)})
                await asyncio.sleep(_DUTY_RESTART_SECONDS)
            except Exception:
                _log.exception("a duty failed and is started again")
                await asyncio.sleep(_DUTY_RESTART_SECONDS)

    # --- Snapshots ------------------------------------------------------------------------------

    async def _make_snapshot(self) -> None:
        """Until one is written: the log, which cannot grow, is not asked for one again when it is
        full.
        """
        while not self._closing.is_set():
            try:
                await self._write_snapshot()
                self.snapshot_failure = ""
                return
            except CurveError as error:
                if self.snapshot_failure != error.message:
                    _log.error("the snapshot is tried again", extra={"error": error.message})
                self.snapshot_failure = error.message
            except Exception:
                _log.exception("the snapshot failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _SNAPSHOT_RETRY_SECONDS)

    async def _write_snapshot(self) -> None:
        """Serializes in slices on the loop; the disk is waited for elsewhere."""
        capture = Capture(self.state)
        index = self.applied_index
        if index <= self.snapshot_index:
            return  # the leader's was installed meanwhile
        await asyncio.to_thread(self._node.snapshot_begin, index, self.applied_term)
        piece = bytearray()
        for part in capture.slices():
            piece += part
            await asyncio.sleep(0)
            if len(piece) >= _SNAPSHOT_PIECE_BYTES:
                await asyncio.to_thread(self._node.snapshot_write, bytes(piece))
                piece.clear()
        await asyncio.to_thread(self._node.snapshot_write, bytes(piece))
        await asyncio.to_thread(self._node.snapshot_commit)
        self.snapshot_index = index
        _log.info("snapshot written", extra={"index": index})

    async def _install(self, event: InstallSnapshot) -> None:
        restorer = Restorer()
        try:
            for data in await asyncio.to_thread(_pieces, event.path):
                for _ in restorer.feed(data):
                    await asyncio.sleep(0)
            self.state = restorer.finish()
        except (CodecError, OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptError(
                f"The snapshot {event.path} of index {event.index} cannot be used: {error}",
                "Empty this metaserver's directory and let it join again.",
            ) from None
        self.applied_index, self.applied_term = event.index, event.term
        self.snapshot_index = event.index
        self.watches.notify_all()
        _log.info("snapshot installed", extra={"index": event.index, "term": event.term})


def _pieces(path: str) -> list[bytes]:
    """The file in pieces. Blocks; not on the loop."""

    def read() -> Iterator[bytes]:
        with open(path, "rb") as file:
            while data := file.read(_SNAPSHOT_PIECE_BYTES):
                yield data

    return list(read())
