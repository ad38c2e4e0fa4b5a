"""The native store on the asyncio side: tickets, events, its end.

Owns: the one NativeStore of the process. Nothing here blocks except opening and formatting, which
happen before the loop has anything else to do. Thread: the asyncio loop.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

from chunkserver.devices import check_block_device, check_empty, device_bytes
from chunkserver.ports import (
    CheckDone,
    CopysetsDone,
    FormDone,
    MembersDone,
    NativeStore,
    RemoveDone,
    StoreAnswer,
    TraceDone,
    TransferDone,
)
from chunkserver.settings import ChunkserverSettings
from curve_py.errors import (
    BusyError,
    ConfigError,
    CurveTimeoutError,
    UnavailableError,
)
from curve_py.service.native_events import NativeEvents
from curve_py.types import new_uuid

_EVENTS_PER_TURN = 64
_ORDER_SECONDS = 5.0
_CHECK_SECONDS = 24 * 3600.0
_log = logging.getLogger(__name__)


def _native() -> Any:
    try:
        return importlib.import_module("curve_py._native.store").StoreServer
    except ImportError as error:
        raise ConfigError(
            f"The native part of the chunkserver cannot be loaded: {error}.",
            "Install the package again: pip install .",
        ) from None


def format_store(settings: ChunkserverSettings) -> bytes:
    """Makes a new store; returns its id. Raises CurveError.

    It takes as long as zeroing its log, and its data where full preallocation is asked for.

    R1: a new store has a new id, always. Cut off before its end it has left no store.
    """
    for device in settings.devices:
        check_block_device(device)
        if not settings.force:
            check_empty(device)
    try:
        settings.store_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"The directory {settings.store_path} cannot be made: {error.strerror}."
        ) from None
    data_bytes, wal_bytes = settings.sizes(
        device_bytes(settings.data_device) if settings.data_device else 0
    )
    store_id = new_uuid()
    _native().format(
        str(settings.wal),
        str(settings.data),
        store_id,
        settings.cluster_id,
        data_bytes,
        wal_bytes,
        settings.preallocation == "full",
        settings.force,
    )
    return store_id


def open_store(settings: ChunkserverSettings, secret: bytes) -> NativeStore:
    """Raises CurveError: damage, another process's store, no store."""
    for device in settings.devices:
        check_block_device(device)
    store: NativeStore = _native()(
        wal=str(settings.wal),
        data=str(settings.data),
        peers=str(settings.store_path / "peers.json"),
        listen=settings.data_listen,
        secret=secret,
        options=settings.options,
    )
    return store


class Store:
    """Turns calls with tickets into awaitables."""

    def __init__(self, native: NativeStore) -> None:
        self.native = native
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._events = NativeEvents(native.fileno)
        self._started = False
        self.failure = ""  # why it is out of service, in one sentence

    async def form_copysets(
        self, copysets: list[tuple[int, list[tuple[bytes, str]], bytes]]
    ) -> FormDone:
        """R1: genesis. Answered once durable. Raises CurveError."""
        done: FormDone = await self._ticket(self.native.form_copysets(copysets))
        return done

    async def fence(
        self, volume_id: int, floor: int, ceiling: int, revoked: list[int], copysets: list[int]
    ) -> CopysetsDone:
        """R12. Answered once applied where this store leads. Raises CurveError."""
        done: CopysetsDone = await self._ticket(
            self.native.fence(volume_id, floor, ceiling, revoked, copysets)
        )
        return done

    async def delete_volume(self, volume_id: int, copysets: list[int]) -> CopysetsDone:
        """R12: a fence at infinity, and everything unmapped. Raises CurveError."""
        done: CopysetsDone = await self._ticket(self.native.delete_volume(volume_id, copysets))
        return done

    async def join_copysets(self, copysets: list[int]) -> FormDone:
        """R1: replicas that become members later. Answered once durable. Raises CurveError."""
        done: FormDone = await self._ticket(self.native.join_copysets(copysets))
        return done

    async def change_members(
        self, copyset: int, change: str, store_id: bytes, voters_min: int
    ) -> MembersDone:
        """Answered once committed, or when it is clear why not. Raises CurveError."""
        done: MembersDone = await self._ticket(
            self.native.change_members(copyset, change, store_id, voters_min)
        )
        return done

    async def remove_replica(self, copyset: int, config_index: int, leader_term: int) -> RemoveDone:
        """Answered once durable. Raises CurveError."""
        done: RemoveDone = await self._ticket(
            self.native.remove_replica(copyset, config_index, leader_term)
        )
        return done

    async def transfer(self, copyset: int, store_id: bytes) -> TransferDone:
        """Answered when the hand-over has begun. Raises CurveError."""
        done: TransferDone = await self._ticket(self.native.transfer(copyset, store_id))
        return done

    async def check(
        self, volume_id: int, placement_id: int, chunks: int, copysets: int, copyset_id: int
    ) -> CheckDone:
        """Compares the replicas of a copyset's part of a volume. Raises CurveError."""
        ticket = self.native.check(volume_id, placement_id, chunks, copysets, copyset_id)
        done: CheckDone = await self._ticket(ticket, _CHECK_SECONDS)
        return done

    async def trace(self, volume_id: int, duration_ms: int) -> TraceDone:
        """Where the volume's writes spend their time from now on. Raises CurveError."""
        ticket = self.native.trace(volume_id, duration_ms)
        done: TraceDone = await self._ticket(ticket, duration_ms / 1000 + _ORDER_SECONDS)
        return done

    async def _ticket(self, ticket: int, seconds: float = _ORDER_SECONDS) -> Any:
        if self.failure:
            raise UnavailableError(f"The chunkserver serves nothing: {self.failure}.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise CurveTimeoutError("The store did not finish the order in time.") from None
        finally:
            self._waiting.pop(ticket, None)

    def start(self) -> None:
        """The native thread begins to serve. Raises CurveError."""
        self._started = True
        self.native.start()

    async def close(self) -> None:
        """Waits for the native thread, which finishes what it has taken. Idempotent."""
        started, self._started = self._started, False
        if started:
            await asyncio.to_thread(self.native.stop)

    async def run(self, stop: asyncio.Event) -> None:
        """From `start` until `stop` is set.

        A store that takes itself out of service does not end it: the process goes on reporting why.
        """
        try:
            await self._events.run(stop, self._drain)
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(UnavailableError("The chunkserver is shutting down."))

    async def _drain(self) -> None:
        while not self._events.stopped and (events := self.native.poll(_EVENTS_PER_TURN)):
            for name, *fields in events:
                self._handle(name, fields)
            await asyncio.sleep(0)

    def _handle(self, name: str, fields: list[Any]) -> None:
        match name:
            case "FormDone":
                self._answer(FormDone(*fields))
            case "FenceDone" | "DeleteDone":
                self._answer(CopysetsDone(*fields))
            case "MembersDone":
                self._answer(MembersDone(*fields))
            case "RemoveDone":
                self._answer(RemoveDone(*fields))
            case "TransferDone":
                self._answer(TransferDone(*fields))
            case "CheckDone":
                self._answer(CheckDone(*fields))
            case "TraceDone":
                self._answer(TraceDone(*fields))
            case "Failed":
                ticket, reason = fields
                future = self._waiting.get(ticket)
                if future is not None and not future.done():
                    future.set_exception(BusyError(f"The store refused the order: {reason}."))
            case "Stopped":
                if fields and fields[0]:
                    self._fail(str(fields[0]))
                else:
                    self._events.stopped = True

    def _fail(self, sentence: str) -> None:
        self.failure = sentence
        _log.error("out of service", extra={"reason": sentence})
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(
                    UnavailableError(f"The chunkserver serves nothing: {sentence}.")
                )

    def _answer(self, done: StoreAnswer) -> None:
        future = self._waiting.get(done.ticket)
        if future is not None and not future.done():
            future.set_result(done)
