"""Four real chunkservers and no metaserver: replicas join, are filled, promoted, removed, and come
back, by the orders that the metaserver's scheduler sends, under verified load and with SIGKILL in
between. Nothing here asserts a time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from curve_py.cli.local.ports import free_addresses
from curve_py.client.native import READ, WRITE, start_node
from curve_py.proto import chunkserver_pb2 as pb
from curve_py.proto import common_pb2
from curve_py.proto.chunkserver_pb2_grpc import ChunkserverAdminStub
from curve_py.service.channel import SignedChannel
from curve_py.service.secret import create_secret
from curve_py.volume_map import MapCopyset, MapStore, VolumeMap, encode

POOL, COPYSETS, VOLUME = 1, 4, 7
IDS = [POOL << 32 | index for index in range(COPYSETS)]
SIZE = 256 << 20
BOUND_SECONDS = 120.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


class Stores:
    """The processes, and the orders to them."""

    def __init__(self, directory: Path, count: int = 4) -> None:
        self.directory = directory
        self.secret = create_secret(directory / "secret")
        addresses = free_addresses(3 * count)
        self.data, self.admin = addresses[:count], addresses[count : 2 * count]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._channels = [SignedChannel(address, self.secret) for address in self.admin]
        self._stubs: list[Any] = [ChunkserverAdminStub(channel) for channel in self._channels]
        for n in range(count):
            (directory / f"{n}.toml").write_text(
                f'secret_file = "{directory / "secret"}"\nstore_path = "{directory / str(n)}"\n'
                f'data_listen = "{self.data[n]}"\nadmin_listen = "{self.admin[n]}"\n'
                f'http_listen = "{addresses[2 * count + n]}"\n'
                'metaservers = ["127.0.0.1:1"]\ndata_bytes = "512MiB"\nwal_bytes = "128MiB"\n'
                f'cluster_id = "{uuid.UUID(int=9)}"\n'
            )
            self.start(n, "--format")
        self.ids: list[bytes] = [bytes(self.status(n).store_id) for n in range(count)]
        peers = [pb.Peer(store_id=self.ids[n], address=self.data[n]) for n in range(count)]
        for n in range(count):
            self.call(n, "SetPeers", pb.SetPeersRequest(topology_version=1, peers=peers))

    def start(self, n: int, *flags: str) -> None:
        command = [str(Path(sys.executable).parent / "curve-chunkserver"), "--config"]
        with open(self.directory / f"{n}.log", "ab") as log:
            self.processes[n] = subprocess.Popen(
                [*command, str(self.directory / f"{n}.toml"), *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def kill(self, n: int) -> None:
        process = self.processes[n]
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        self.processes[n] = None

    def restart(self, n: int) -> None:
        self.kill(n)
        self.start(n)
        self.status(n)

    def close(self) -> None:
        for process in self.processes:
            if process is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait(60)
        for channel in self._channels:
            channel.close()

    def call(self, n: int, method: str, request: Any) -> Any:
        if method != "GetStoreStatus":
            request.store_id = self.ids[n]
        while True:
            process = self.processes[n]
            assert process is not None, f"chunkserver {n} was killed"
            assert process.poll() is None, (self.directory / f"{n}.log").read_text()[-2000:]
            try:
                return getattr(self._stubs[n], method)(request, timeout=10)
            except grpc.RpcError as error:
                if error.code() not in (  # type: ignore[attr-defined]
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise
            time.sleep(0.05)

    def status(self, n: int) -> Any:
        return self.call(n, "GetStoreStatus", pb.GetStoreStatusRequest())

    def report(self, n: int, copyset: int) -> common_pb2.ReplicaReport | None:
        replicas = self.status(n).report.replicas
        return next((r for r in replicas if r.copyset_id == copyset), None)

    def alive(self) -> list[int]:
        return [n for n, process in enumerate(self.processes) if process is not None]

    def leader(self, copyset: int) -> int:
        def look() -> list[int]:
            found = []
            for n in self.alive():
                report = self.report(n, copyset)
                if report is not None and report.role == common_pb2.REPLICA_ROLE_LEADER:
                    found.append((report.term, n))
            return [n for _, n in sorted(found)[-1:]]

        return int(eventually(look, f"a leader of {copyset}")[0])

    def change(self, copyset: int, **change: bytes) -> pb.ChangeMembersResponse:
        """Asks whoever leads until it is done."""

        def once() -> pb.ChangeMembersResponse | None:
            request = pb.ChangeMembersRequest(copyset_id=copyset, voters_min=3, **change)
            done: pb.ChangeMembersResponse = self.call(
                self.leader(copyset), "ChangeMembers", request
            )
            return done if done.applied else None

        return eventually(once, f"{change} in {copyset}")  # type: ignore[no-any-return]

    def move_leader(self, copyset: int, away_from: int, to: int) -> None:
        def once() -> bool:
            at = self.leader(copyset)
            if at != away_from:
                return True
            request = pb.TransferLeaderRequest(copyset_id=copyset, to_store_id=self.ids[to])
            self.call(at, "TransferLeader", request)
            return False

        self.change(copyset, prefer=self.ids[to])
        eventually(once, f"another leader of {copyset}")

    def form(self) -> None:
        genesis = [
            pb.CopysetGenesis(
                copyset_id=copyset, voters=self.ids[:3], preferred_leader=self.ids[k % 3]
            )
            for k, copyset in enumerate(IDS)
        ]
        for n in range(3):
            done = self.call(n, "FormCopysets", pb.FormCopysetsRequest(copysets=genesis))
            assert list(done.copyset_ids) == IDS
        left = set(IDS)

        def fence() -> bool:
            for n in range(3):
                request = pb.FenceVolumeRequest(
                    volume_id=VOLUME, floor_epoch=1, ceiling_epoch=1, copyset_ids=sorted(left)
                )
                left.difference_update(self.call(n, "FenceVolume", request).applied_copyset_ids)
            return not left

        eventually(fence, "the fence everywhere")

    def volume_map(self) -> bytes:
        stores = tuple(MapStore(self.ids[n], self.data[n]) for n in range(len(self.ids)))
        copysets = tuple(MapCopyset(tuple(range(len(stores))), 0) for _ in IDS)
        return encode(
            VolumeMap(1, VOLUME, VOLUME, SIZE, 1, 16 << 20, 1, POOL, False, stores, copysets)
        )


class Load:
    """One writer that knows what every slot must hold, and reads it back now and then."""

    SLOTS, BYTES = 512, 64 << 10

    def __init__(self, stores: Stores) -> None:
        self._node = start_node(stores.secret)
        self._volume = self._node.open_volume(stores.volume_map())
        self._random = random.Random(1)
        self._versions = [0] * self.SLOTS
        self._stop = threading.Event()
        self.done = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _content(self, slot: int) -> bytes:
        version = self._versions[slot]
        return random.Random(slot << 32 | version).randbytes(self.BYTES) if version else b""

    def _check(self, slot: int) -> None:
        got = bytearray(self.BYTES)
        self._node.transfer(self._volume, READ, self._offset(slot), self.BYTES, got)
        assert got == (self._content(slot) or bytes(self.BYTES)), f"slot {slot}"

    def _offset(self, slot: int) -> int:
        return slot * (SIZE // self.SLOTS)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                slot = self._random.randrange(self.SLOTS)
                if self._random.random() < 0.3:
                    self._check(slot)
                else:
                    self._versions[slot] += 1
                    data = self._content(slot)
                    self._node.transfer(self._volume, WRITE, self._offset(slot), self.BYTES, data)
                self.done += 1
        except BaseException as error:
            self.error = error

    def more(self, count: int) -> None:
        target = self.done + count

        def reached() -> bool:
            assert self.error is None, self.error
            return self.done >= target

        eventually(reached, f"{count} more I/Os")

    def end(self) -> None:
        self._stop.set()
        self._thread.join(BOUND_SECONDS)
        assert not self._thread.is_alive()
        assert self.error is None, self.error

    def check_all(self) -> None:
        for slot in range(self.SLOTS):
            self._check(slot)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(BOUND_SECONDS)
        self._node.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores(tmp_path)
    try:
        made.form()
        yield made
    finally:
        made.close()


def test_a_replica_is_replaced_under_load(stores: Stores) -> None:
    load = Load(stores)
    try:
        load.more(600)
        old, new = 0, 3
        # Slowly, so that there is something to be seen, and at most two at a time.
        stores.call(
            new, "SetLimits", pb.SetLimitsRequest(sync_bytes_per_second=8 << 20, syncs_at_once=2)
        )
        for _ in range(2):
            join = pb.JoinCopysetsRequest(copyset_ids=IDS)
            assert list(stores.call(new, "JoinCopysets", join).copyset_ids) == IDS
        report = stores.report(new, IDS[0])
        assert report is not None
        assert (report.role, report.config_index) == (common_pb2.REPLICA_ROLE_LEARNER, 0)
        for copyset in IDS:
            stores.change(copyset, add_learner=stores.ids[new])
        stores.restart(new)  # while it is filled
        load.more(100)
        removed: dict[int, int] = {}
        for k, copyset in enumerate(IDS):
            voters = stores.change(copyset, promote=stores.ids[new]).voters
            assert set(voters) == set(stores.ids)
            if k == 1:
                stores.restart(1)  # one of those that stay
            stores.move_leader(copyset, old, 1 + k % 2)
            done = stores.change(copyset, remove=stores.ids[old])
            assert set(done.voters) == set(stores.ids[1:])
            removed[copyset] = done.config_index
        load.more(100)
        for copyset, config_index in removed.items():
            remove = pb.RemoveReplicaRequest(copyset_id=copyset, config_index=config_index)
            assert stores.call(old, "RemoveReplica", remove).removed
            assert stores.call(old, "RemoveReplica", remove).removed
            # A member refuses.
            assert not stores.call(new, "RemoveReplica", remove).removed
        stores.restart(old)
        assert not stores.status(old).report.replicas
        eventually(lambda: stores.status(old).report.usage.used_bytes == 0, "its space comes back")
        load.more(300)
        load.end()
        load.check_all()
        # What was filled serves: two of three are enough.
        stores.kill(1)
        load.check_all()
        # And the store that was emptied comes back as a member.
        stores.start(1)
        stores.status(1)
        join = pb.JoinCopysetsRequest(copyset_ids=IDS)
        assert list(stores.call(old, "JoinCopysets", join).copyset_ids) == IDS
        for copyset in IDS:
            stores.change(copyset, add_learner=stores.ids[old])
            stores.change(copyset, promote=stores.ids[old])
        reports = [stores.report(stores.leader(copyset), copyset) for copyset in IDS]
        for found in reports:
            assert found is not None
            assert {peer.role for peer in found.peers} == {common_pb2.MEMBER_ROLE_VOTER}
        load.check_all()
    finally:
        load.close()


def test_orders_that_cannot_be_done_say_why(stores: Stores) -> None:
    copyset = IDS[0]
    leader = stores.leader(copyset)
    other = (leader + 1) % 3

    def order(n: int, **change: bytes) -> Any:
        request = pb.ChangeMembersRequest(copyset_id=copyset, voters_min=3, **change)
        return stores.call(n, "ChangeMembers", request)

    assert order(other, add_learner=stores.ids[3]).leader_store_id == stores.ids[leader]
    assert "transfer" in order(leader, remove=stores.ids[leader]).busy
    assert "leave 2 voters" in order(leader, remove=stores.ids[other]).busy
    assert "no member" in order(leader, promote=stores.ids[3]).busy
    transfer = pb.TransferLeaderRequest(copyset_id=copyset, to_store_id=stores.ids[leader])
    answer = stores.call(other, "TransferLeader", transfer)
    assert (answer.started, answer.leader_store_id) == (False, stores.ids[leader])
