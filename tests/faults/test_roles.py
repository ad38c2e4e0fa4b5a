"""SIGKILL and SIGSTOP of every role under checked load."""

from __future__ import annotations

import json
import os
import signal

import pytest
from faults_harness import Nbd, Servers, checked_load, connect, curve, eventually, more

from curve_py.client import Cluster


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_chunkserver(healthy: Servers, number: signal.Signals) -> None:
    """It leads a third of what is written, and follows in the rest."""
    victim = healthy.chunkservers[0 if number == signal.SIGKILL else 1].name
    with (
        healthy.connect() as cluster,
        checked_load(cluster, f"chunkserver-{number.name}") as (writer, reader, _),
    ):
        more(writer, 50)
        healthy.signal(victim, number)
        more(writer, 200)
        more(reader, 50)
        if number == signal.SIGSTOP:
            healthy.signal(victim, signal.SIGCONT)
        else:
            healthy.restart()
        more(writer, 200)
        more(reader, 50)
        healthy.caught_up()


def test_metaservers_are_not_needed_for_io(healthy: Servers) -> None:
    with (
        healthy.connect() as cluster,
        checked_load(cluster, "no-metaservers") as (writer, reader, _),
    ):
        for metaserver in healthy.metaservers:
            healthy.kill(metaserver.name)
        more(writer, 200)
        more(reader, 200)
        # A chunkserver starts and serves with no metaserver up.
        victim = healthy.chunkservers[0].name
        healthy.kill(victim)
        healthy.local.start_missing(healthy.local.directory.load())
        more(writer, 200)
        healthy.restart()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_metaserver_leader_under_creates(healthy: Servers, number: signal.Signals) -> None:
    made = []
    with healthy.connect() as cluster:

        def create(count: int) -> None:
            for _ in range(count):
                name = f"{number.name}-{len(made)}"
                cluster.volumes().create(name, "1GiB")
                made.append(name)

        create(10)
        leader = healthy.metaserver_leader()
        healthy.signal(leader, number)
        create(20)
        if number == signal.SIGSTOP:
            healthy.signal(leader, signal.SIGCONT)
        healthy.restart()
        create(10)
        names = [volume.name for volume in cluster.volumes().list()]
        assert sorted(name for name in names if name.startswith(number.name)) == sorted(made)
        for name in made:
            cluster.volumes().delete(name)


def exported(servers: Servers, cluster: Cluster, name: str) -> tuple[str, int]:
    """Address and pid of a new export of a new volume."""
    address = f"unix:{servers.path}/{name}.sock"
    cluster.volumes().create(name, "64MiB")
    answer = json.loads(curve(servers, "volume", "export", name, "--nbd", address))
    return address, int(answer["export"]["pid"])


def test_death_of_an_nbd_client(healthy: Servers) -> None:
    with healthy.connect() as cluster:
        address, _ = exported(healthy, cluster, "client-death")
        survivor = Nbd(address, "client-death")
        survivor.write(0, b"a" * 4096)
        # In the middle of a request, with answers on their way, and in the negotiation.
        dead = Nbd(address, "client-death")
        dead.send(1, 8192, 65536, b"b" * 1000)
        dead.socket.close()
        dead = Nbd(address, "client-death")
        for _ in range(20):
            dead.send(0, 0, 1024 * 1024)
        dead.socket.close()
        connect(address).close()
        assert survivor.read(0, 4096) == b"a" * 4096
        assert survivor.read(8192, 4096) == bytes(4096)  # half a request is none
        survivor.close()
        curve(healthy, "volume", "unexport", "client-death")
        cluster.volumes().delete("client-death")


def test_an_exporter_that_is_killed(healthy: Servers) -> None:
    """What it has acknowledged is there when it is exported again."""
    with healthy.connect() as cluster:
        address, pid = exported(healthy, cluster, "exporter")
        client = Nbd(address, "exporter")
        for number in range(64):
            client.write(number * 4096, bytes([number]) * 4096)
        os.kill(pid, signal.SIGKILL)
        # Not a child of this process: gone, or a zombie that nobody has collected.
        eventually(lambda: not os.path.exists(f"/proc/{pid}/exe"), "the exporter ends")
        curve(healthy, "volume", "export", "exporter", "--nbd", address)
        client = Nbd(address, "exporter")
        for number in range(64):
            assert client.read(number * 4096, 4096) == bytes([number]) * 4096
        client.close()
        curve(healthy, "volume", "unexport", "exporter")
        cluster.volumes().delete("exporter")
