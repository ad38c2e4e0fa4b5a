"""Cut networks: every server and every client on a host of its own, under load that is checked.

The hosts are network namespaces (networks.py); a cut drops what arrives and tells nobody. Two
clients with processes of their own read and write the same sectors (load_client.py); at the end of
each test their whole history must be linearizable (history.py), without one I/O error, and every
replica catches up once the network is whole.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from faults_harness import BOUND_SECONDS, MIB, Servers, eventually
from history import NEVER, Operation, check
from networks import Networks, NotAllowedError, links, namespaces

from curve_py.cli.local.processes import Processes

CLIENTS = ("client-1", "client-2")
VOLUME_BYTES = 1024 * MIB
FLAPS = 12


class HostProcesses(Processes):
    """Each service starts on its own host."""

    def __init__(self, servers: Servers, networks: Networks) -> None:
        super().__init__(servers.local.directory)
        self._networks = networks

    def start(self, name: str, command: Sequence[str]) -> int:
        return super().start(name, self._networks.command(name, command))


class Load:
    """One load_client on a host."""

    def __init__(self, net: Net, client: str, volume: str, mode: str) -> None:
        self._number = CLIENTS.index(client)
        self._history = net.servers.path / f"{volume}-{client}-{time.monotonic_ns()}.history"
        program = [sys.executable, str(Path(__file__).with_name("load_client.py"))]
        arguments = [str(net.servers.path), volume, mode, str(self._number), str(self._history)]
        self._log = self._history.with_suffix(".log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                net.networks.command(client, [*program, *arguments]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"attached\n", self._log.read_text()

    def done(self) -> int:
        return self._history.read_bytes().count(b"\n")

    def more(self, count: int) -> None:
        """Returns when it has done so many more I/Os."""
        target = self.done() + count
        eventually(lambda: self.done() >= target, f"client {self._number}: {count} more I/Os")

    def errors(self) -> set[str]:
        return {line.split()[5] for line in self._lines()} - {"-"}

    def _lines(self) -> list[str]:
        return [line for line in self._history.read_text().splitlines(True) if line[-1] == "\n"]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(BOUND_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"client {self._number}: an I/O did not end") from None
        assert self._process.returncode == 0, self._log.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def history(self, fence: int = NEVER) -> list[Operation]:
        """A write that failed may have happened until `fence`."""
        found = []
        for line in self._lines():
            kind, *numbers, error = line.split()
            slot, value, begin, end = map(int, numbers)
            if error != "-" and kind == "r":
                continue
            good = error == "-"
            end = end if good else fence
            found.append(Operation(kind == "w", slot, value, begin, end, self._number, good))
        return found


class Net:
    """A cluster, and the network that it is on."""

    def __init__(self, path: Path, chunkservers: int = 3) -> None:
        self.servers = Servers(path, 256 * MIB)
        local = self.servers.local
        local.directory.make()
        description = local.describe(3, chunkservers, self.servers.store_bytes)
        names = self.servers.names
        self.networks = Networks([*names, *CLIENTS])
        self.networks.make()
        local.processes = HostProcesses(self.servers, self.networks)
        # Each service keeps its ports, on its own host.
        files = [local.directory.config_file(name) for name in names]
        for server in [*description.metaservers, *description.chunkservers]:
            addresses = [v for k, v in asdict(server).items() if k.endswith("_address")]
            for file in [*files, local.directory.description_file]:
                text = file.read_text()
                for old in addresses:
                    new = self.networks.address(server.name) + old[old.index(":") :]
                    text = text.replace(f'"{old}"', f'"{new}"')
                file.write_text(text)

    def remove(self) -> None:
        self.servers.remove()
        self.networks.remove()

    @property
    def metaservers(self) -> list[str]:
        return [server.name for server in self.servers.metaservers]

    @property
    def chunkservers(self) -> list[str]:
        return [server.name for server in self.servers.chunkservers]

    def leader(self) -> str:
        """The chunkserver that leads most copysets, once the metaservers know of all who does."""
        addresses: list[str] = []

        def known() -> bool:
            with self.servers.connect() as cluster:
                addresses[:] = [copyset.leader_address for copyset in cluster.copysets()]
            return all(addresses)

        eventually(known, "a leader of each copyset")
        address = Counter(addresses).most_common(1)[0][0]
        return next(s.name for s in self.servers.chunkservers if s.data_address == address)

    def others(self, *hosts: str) -> list[str]:
        return [host for host in self.networks.hosts if host not in hosts]

    @contextlib.contextmanager
    def load(self, volume: str) -> Iterator[list[Load]]:
        """Both clients at work; at the end no error, and a history that is linearizable."""
        loads: list[Load] = []
        try:
            with self.servers.connect() as cluster:
                cluster.volumes().create(volume, VOLUME_BYTES)
                loads = [Load(self, client, volume, "shared") for client in CLIENTS]
                for load in loads:
                    load.more(200)
                yield loads
                self.networks.heal()
                for load in loads:
                    load.more(200)
                    load.end()
                assert [load.errors() for load in loads] == [set(), set()]
                assert check(o for load in loads for o in load.history()) == []
                self.servers.caught_up()
                cluster.volumes().delete(volume)
        finally:
            for load in loads:
                load.kill()


@contextlib.contextmanager
def made_net(path: Path, chunkservers: int) -> Iterator[Net]:
    net = None
    try:
        try:
            net = Net(path, chunkservers)
        except NotAllowedError as error:
            pytest.skip(f"no network namespaces or no nftables here: {error}")
        yield net
    finally:
        if net is not None:
            net.remove()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with made_net(tmp_path_factory.mktemp("partitions"), 3) as net:
        net.servers.up()
        yield net


@pytest.fixture
def net(made: Net) -> Iterator[Net]:
    yield made
    made.networks.heal()
    made.servers.all_run()


def test_hosts_leave_nothing() -> None:
    networks = Networks(["one", "two"])
    before = links()
    try:
        networks.make()
    except NotAllowedError as error:
        pytest.skip(f"no network namespaces or no nftables here: {error}")
    try:
        mine = set(map(networks.namespace, ["one", "two", "switch"]))
        assert mine <= set(namespaces())
        ping = [sys.executable, "-c", _CONNECT, networks.address("two")]
        assert subprocess.run(networks.command("one", ping), check=False).returncode == 0
        networks.deafen("two", ["one"])
        assert subprocess.run(networks.command("one", ping), check=False).returncode == 1
        networks.heal()
        assert subprocess.run(networks.command("one", ping), check=False).returncode == 0
    finally:
        networks.remove()
    assert not mine & set(namespaces())
    eventually(lambda: links() == before, "the links are gone")


def test_a_target_that_its_peers_do_not_reach_is_given_up(tmp_path: Path) -> None:
    """It tells the metaservers that it is well, and is never filled: another one is.

    On a network of its own, so before those who share one.
    """
    with made_net(tmp_path / "five", 5) as net:
        for name in net.metaservers:
            config = net.servers.local.directory.config_file(name)
            config.write_text("fill_patience_seconds = 8.0\n" + config.read_text())
        net.servers.up()
        lost, *others, bad = (server for server in net.servers.chunkservers)
        with net.servers.connect() as cluster:

            def replicas() -> list[set[str]]:
                return [
                    {r.data_address for r in copyset.replicas} for copyset in cluster.copysets()
                ]

            def given_up() -> set[str]:
                return {
                    task.target_address
                    for task in cluster.tasks().ended
                    if "has got nothing more" in task.cancelled
                }

            before = replicas()
            net.networks.cut([bad.name], [lost.name, *(each.name for each in others)])
            net.servers.kill(lost.name)
            eventually(lambda: bad.data_address in given_up(), "it is given up")
            others_have = {each.data_address for each in others}
            # Those that did not have it have all replicas again, and none there. Those that had it
            # too have lost their majority, and wait for it.
            apart = [n for n, stores in enumerate(before) if bad.data_address not in stores]
            eventually(
                lambda: all(replicas()[n] == others_have for n in apart), "the others are filled"
            )
            net.networks.heal()
            eventually(
                lambda: (
                    all(lost.data_address not in stores for stores in replicas())
                    and cluster.status().copysets_degraded == 0
                ),
                "all are whole",
            )


# Refused at once where the host is reached, silent where it is not.
_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=1)
except ConnectionRefusedError:
    sys.exit(0)
except TimeoutError:
    sys.exit(1)
"""


def test_a_chunkserver_that_nobody_reaches(net: Net) -> None:
    victim = net.leader()
    with net.load("whole") as loads:
        net.networks.cut([victim], net.others(victim))
        for load in loads:
            load.more(300)


@pytest.mark.parametrize("hears", [True, False])
def test_a_chunkserver_in_one_direction_only(net: Net, hears: bool) -> None:
    """It hears all and nobody hears it, or the other way round."""
    victim = net.leader()
    with net.load(f"one-way-{hears}") as loads:
        if hears:
            for host in net.others(victim):
                net.networks.deafen(host, [victim])
        else:
            net.networks.deafen(victim, net.others(victim))
        for load in loads:
            load.more(300)


def test_a_leader_that_only_its_clients_reach(net: Net) -> None:
    """R9: it answers no read once the others may have elected another."""
    victim = net.leader()
    with net.load("majority") as loads:
        followers = [name for name in net.chunkservers if name != victim]
        net.networks.cut([victim], [*followers, *net.metaservers])
        for load in loads:
            load.more(300)


def test_a_client_that_does_not_reach_a_leader(net: Net) -> None:
    """Its I/O to that leader waits until the network is whole; the other one's goes on."""
    victim = net.leader()
    with net.load("client") as loads:
        net.networks.cut([victim], ["client-1"])
        loads[1].more(500)


def test_two_chunkservers_that_do_not_reach_each_other(net: Net) -> None:
    """Whoever the third one follows leads; the other does not disturb it for ever."""
    one, other = net.chunkservers[0], net.chunkservers[1]
    with net.load("partial") as loads:
        net.networks.cut([one], [other])
        for load in loads:
            load.more(400)


def test_a_network_that_flaps(net: Net) -> None:
    choice = random.Random(11)
    with net.load("flaps") as loads:
        for _ in range(FLAPS):
            victim, *rest = choice.sample(net.chunkservers, 3)
            if choice.random() < 0.5:
                net.networks.cut([victim], net.others(victim))
            else:
                net.networks.deafen(victim, rest)
            time.sleep(choice.uniform(0.05, 0.7))
            net.networks.heal()
            time.sleep(choice.uniform(0.0, 0.3))
        for load in loads:
            load.more(100)


def test_metaservers_that_are_cut_off(net: Net) -> None:
    """The others elect; I/O does not notice."""
    with net.servers.connect() as cluster, net.load("meta") as loads:
        leader = net.servers.metaserver_leader()
        net.networks.cut([leader], net.others(leader))
        cluster.volumes().create("made-by-the-majority", MIB)
        for load in loads:
            load.more(200)
        net.networks.cut(net.metaservers, [*net.chunkservers, *CLIENTS])
        for load in loads:
            load.more(200)
        net.networks.heal()
        cluster.volumes().delete("made-by-the-majority")


def test_a_writer_that_was_replaced_while_it_was_cut_off(net: Net) -> None:
    """R12: it is not told; still nothing of it is done after the new writer was admitted."""
    with net.servers.connect() as cluster:
        cluster.volumes().create("fenced", VOLUME_BYTES)
        old = Load(net, "client-1", "fenced", "exclusive")
        new = None
        try:
            old.more(200)
            net.networks.cut(["client-1"], net.metaservers)
            old.more(100)
            new = Load(net, "client-2", "fenced", "exclusive")
            fence = time.monotonic_ns()
            new.more(300)
            eventually(lambda: bool(old.errors()), "the old writer notices")
            net.networks.heal()
            new.more(100)
            new.end()
            old.end()
            assert old.errors() == {"fenced"}
            assert new.errors() == set()
            late = [o for o in old.history() if o.begin > fence and o.acknowledged]
            assert late == []
            assert check([*old.history(fence), *new.history()]) == []
        finally:
            for load in (old, new):
                if load is not None:
                    load.kill()
        net.servers.caught_up()
        cluster.volumes().delete("fenced")
