"""A file system that something else has filled, below chunkservers and metaservers.

Stores and logs take their space when they are made, so that all goes on; only a metaserver's
snapshot needs more. Where there is none for it, what was acknowledged stays, what cannot be done is
said, and all goes on by itself once there is space again. The file system is an ext4 on a loop
device, which only root may mount.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_harness import BOUND_SECONDS, MIB, Servers, checked_load, eventually, more

from curve_py.cli.local.ports import free_addresses
from curve_py.cli.local.processes import Processes
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import (
    CurveIoError,
    CurveTimeoutError,
    NotLeaderError,
    UnavailableError,
)
from curve_py.types import new_uuid
from metaserver.adapters.raft_node import NativeRaftNode
from metaserver.domain import commands as cmd
from metaserver.service.replicator import Replicator

COMMAND_BYTES, LOG_BYTES = 900 * 1024, 64 * MIB
SECRET = b"s" * 32


class SmallDisk:
    """A mounted file system, and what fills it."""

    def __init__(self, work: Path, mount: Path, size: int) -> None:
        self.mount, image = mount, work / "image"
        self._filler = mount / "filler"
        with open(image, "wb") as file:
            file.truncate(size)
        mount.mkdir(parents=True, exist_ok=True)
        for command in (
            ["mkfs.ext4", "-q", "-m", "0", str(image)],
            ["mount", "-o", "loop", str(image), str(mount)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"no right to mount a file system: {done.stderr}")

    def fill(self) -> None:
        """To the last byte."""
        with open(self._filler, "ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                try:
                    while True:
                        file.write(b"f" * size)
                except OSError:
                    pass
            os.fsync(file.fileno())
        assert os.statvfs(self.mount).f_bavail == 0

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.mount)], check=False)


MakeDisk = Callable[[Path, int], SmallDisk]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    made: list[SmallDisk] = []

    def make(mount: Path, size: int) -> SmallDisk:
        disk = SmallDisk(tmp_path, mount, size)
        made.append(disk)
        return disk

    yield make
    for disk in made:
        disk.close()


def test_a_cluster_whose_file_system_is_full(tmp_path: Path, make_disk: MakeDisk) -> None:
    """It writes, makes volumes and starts again; clients write where nothing was before."""
    servers = Servers(tmp_path / "cluster", 192 * MIB)
    servers.local.directory.make()
    disk = make_disk(servers.path / "data", 1100 * MIB)
    try:
        for chunkserver in servers.local.describe(3, 3, servers.store_bytes).chunkservers:
            config = servers.local.directory.config_file(chunkserver.name)
            config.write_text(config.read_text() + 'wal_bytes = "64MiB"\n')
        servers.up()
        with servers.connect() as cluster:
            with checked_load(cluster, "full") as (writer, reader, _):
                more(writer, 50)
                disk.fill()
                more(writer, 600)
                more(reader, 100)
                for number in range(20):
                    cluster.volumes().create(f"v{number}", "1GiB")
                servers.kill(servers.chunkservers[0].name)
                servers.kill(servers.metaserver_leader())
                more(writer, 100)
                servers.restart()
                for name in servers.names:
                    servers.kill(name)
                servers.restart()
                more(writer, 300)
                more(reader, 100)
            servers.caught_up()
            names = {volume.name for volume in cluster.volumes().list()}
            assert {f"v{number}" for number in range(20)} <= names
    finally:
        servers.down()
        disk.close()
        servers.remove()


def test_no_service_runs_that_nobody_would_find_again(tmp_path: Path, make_disk: MakeDisk) -> None:
    disk = make_disk(tmp_path / "small", 16 * MIB)
    directory = ClusterDirectory(disk.mount / "cluster")
    directory.make()
    disk.fill()
    before = set(children())
    with pytest.raises(OSError, match="No space left on device"):
        Processes(directory).start("service", ["sleep", "1000"])
    assert set(children()) == before


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


# --- The metaserver's log and snapshots -----------------------------------------------------------


class Node:
    """A metaserver's native node, and what it has said."""

    def __init__(self, folder: Path, node_id: bytes, members: list[tuple[bytes, str]]) -> None:
        native = importlib.import_module("curve_py._native.metanode")
        folder.mkdir(exist_ok=True)
        self._node = native.MetaNode(
            data_dir=str(folder),
            node_id=node_id,
            listen=dict(members)[node_id],
            members=members,
            secret=SECRET,
            bootstrap=not (folder / "wal").exists(),
            wal_bytes=LOG_BYTES,
        )
        self._node.start()
        self.events: list[tuple[Any, ...]] = []
        self.leads = False

    def poll(self) -> None:
        for event in self._node.poll(100):
            self.events.append(event)
            if event[0] == "LeaderChanged":
                self.leads = event[3]

    def wait_for(self, kind: str) -> None:

        def is_there() -> bool:
            self.poll()
            return any(event[0] == kind for event in self.events)

        eventually(is_there, kind)

    def propose(self, number: int) -> bool:
        """Whether it was committed, else refused."""
        ticket = self._node.propose(number.to_bytes(4, "little") * (COMMAND_BYTES // 4))
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline:
            self.poll()
            for event in self.events:
                if event[0] == "Committed" and event[4] == ticket:
                    return True
                if event[0] == "ProposalFailed" and event[1] == ticket:
                    return False
            time.sleep(0.002)
        raise AssertionError("a proposal was not answered")

    def numbers(self) -> list[int]:
        """What was committed, in order."""
        self.poll()
        return [int.from_bytes(e[3][:4], "little") for e in self.events if e[0] == "Committed"]

    def until_it_leads(self) -> None:
        def does() -> bool:
            self.poll()
            return self.leads

        eventually(does, "it leads")

    def until_it_has(self, *numbers: int) -> None:
        """As the last ones."""
        eventually(lambda: self.numbers()[-len(numbers) :] == list(numbers), f"it has {numbers}")

    def applied(self) -> tuple[int, int]:
        last = [e for e in self.events if e[0] == "Committed"][-1]
        return last[1], last[2]

    def snapshot(self) -> None:
        index, term = self.applied()
        self._node.snapshot_begin(index, term)
        self._node.snapshot_write(b"state" * 200_000)
        self._node.snapshot_commit()

    def close(self) -> None:
        self._node.stop()
        self.poll()
        del self._node


def test_a_metaserver_whose_file_system_is_full(tmp_path: Path, make_disk: MakeDisk) -> None:
    """Its log fills up, refuses, keeps all over restarts, and goes on when there is space."""
    disk = make_disk(tmp_path / "small", 100 * MIB)
    members = [(new_uuid(), free_addresses(1)[0])]
    folder = disk.mount / "metaserver"
    node = Node(folder, members[0][0], members)
    try:
        node.until_it_leads()
        assert node.propose(1)
        node.snapshot()
        disk.fill()
        count = 1
        while node.propose(count + 1):
            count += 1
        assert count * COMMAND_BYTES > LOG_BYTES // 3
        for _ in range(3):
            before = sorted(os.listdir(folder))
            with pytest.raises(CurveIoError, match="No space left on device"):
                node.snapshot()
            assert sorted(os.listdir(folder)) == before  # nothing half made stays
            assert not node.propose(0)
            node.close()
            node = Node(folder, members[0][0], members)
            node.until_it_leads()
            node.until_it_has(*range(2, count + 1))  # everything behind the snapshot
        node.wait_for("SnapshotWanted")
        disk.free()
        node.snapshot()
        eventually(lambda: node.propose(count + 1), "it goes on")
    finally:
        node.close()


async def test_a_leader_whose_file_system_is_full_hands_over(
    tmp_path: Path, make_disk: MakeDisk
) -> None:
    """It is the preferred leader too. Changes go on, also many times of what its log holds."""
    disk = make_disk(tmp_path / "small", 80 * MIB)
    ids = sorted(new_uuid() for _ in range(3))
    members = list(zip(ids, free_addresses(3), strict=True))
    folders = [disk.mount / "one", tmp_path / "two", tmp_path / "three"]
    nodes = [Node(f, i, members) for f, i in zip(folders, ids, strict=True)]
    replicators = [Replicator(NativeRaftNode(node._node), {}) for node in nodes]
    stop = asyncio.Event()
    running = [asyncio.create_task(replicator.run(stop)) for replicator in replicators]

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_SECONDS):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)

    async def change(number: int) -> None:
        """Which the state refuses, and remembers; whoever leads takes it, within the bound."""
        command = cmd.CreateVolume(
            request_id=number.to_bytes(16, "big"),
            at_ms=1,
            name="x" * COMMAND_BYTES,
            pool_name="default",
            size_bytes=1 << 30,
            stripe_unit_bytes=1 << 24,
            stripe_count=1,
        )
        async with asyncio.timeout(BOUND_SECONDS):
            while True:
                for replicator in replicators:
                    with contextlib.suppress(NotLeaderError, UnavailableError, CurveTimeoutError):
                        await replicator.submit(command)
                        return
                await asyncio.sleep(0.02)

    try:
        await until(lambda: replicators[0].is_serving)
        await change(1)
        disk.fill()
        for number in range(2, 2 + 2 * LOG_BYTES // COMMAND_BYTES):
            await change(number)
        assert not replicators[0].is_serving
        assert "No space left on device" in replicators[0].snapshot_failure
        last = max(replicator.applied_index for replicator in replicators)
        assert replicators[0].applied_index < last
        disk.free()
        await until(lambda: replicators[0].applied_index >= last)
        await until(lambda: replicators[0].is_serving)  # it is preferred
        await change(1000)
    finally:
        stop.set()
        await asyncio.gather(*running, return_exceptions=True)
        for node in nodes:
            node.close()


def propose(nodes: list[Node], number: int) -> None:
    """To whoever leads, until it is committed."""

    def is_taken() -> bool:
        for node in nodes:
            node.poll()
        return any(node.leads and node.propose(number) for node in nodes)

    eventually(is_taken, f"{number} is taken")


def test_a_metaserver_that_has_no_room_for_the_state(
    tmp_path: Path, make_disk: MakeDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was away for long; it lags until it has room, and does not stop."""
    disk = make_disk(tmp_path / "small", 80 * MIB)
    ids = [new_uuid() for _ in range(3)]
    members = list(zip(ids, free_addresses(3), strict=True))
    folders = [tmp_path / "one", tmp_path / "two", disk.mount / "three"]
    nodes = [Node(f, i, members) for f, i in zip(folders, ids, strict=True)]
    try:
        propose(nodes, 1)
        nodes[2].until_it_has(1)
        nodes.pop().close()
        disk.fill()
        for number in range(2, 40):  # more than their logs keep
            propose(nodes, number)
        for node in nodes:
            node.until_it_has(39)
            node.snapshot()
        nodes.append(Node(folders[2], ids[2], members))
        said = ""

        def has_failed() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            nodes[2].poll()
            return "state_transfer_failed" in said

        eventually(has_failed, "the state does not fit")
        assert "No space left on device" in said
        assert not {"InstallSnapshot", "Stopped"} & {event[0] for event in nodes[2].events}
        disk.free()
        nodes[2].wait_for("InstallSnapshot")
        propose(nodes, 99)
        nodes[2].until_it_has(99)
    finally:
        for node in nodes:
            node.close()
