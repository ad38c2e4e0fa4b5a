"""A node that is cut off from everything, in namespaces of its own: its volume goes elsewhere.

The hosts are network namespaces, as in tests/faults/test_partitions.py: each server and each node
has its own, and a cut drops what arrives and tells nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from csi_harness import MIB, CsiNode, eventually, mount_capability
from test_life import APART
from test_partitions import CLIENTS, Net

from csi_driver.proto import csi_pb2 as csi

EXT4 = mount_capability("ext4")


@pytest.fixture
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    made = Net(tmp_path_factory.mktemp("cut"))
    try:
        made.servers.up()
        yield made
    finally:
        made.networks.heal()
        made.remove()


def test_the_volume_of_a_node_that_is_cut_off(net: Net, make_node: Callable[..., CsiNode]) -> None:
    first, second = (
        make_node(name, (*net.networks.command(name, ()), *APART), net.servers.path)
        for name in CLIENTS
    )
    first.start()
    second.start()
    volume = first.create("cut", EXT4, 512 * MIB)
    target = first.use(volume, EXT4)
    first.shell(f"echo before > {target}/kept; sync {target}/kept")
    second.call("NodeGetInfo", csi.NodeGetInfoRequest())

    # Its write waits: it does not know that it has lost the volume, nor that it has not.
    net.networks.cut([CLIENTS[0]], net.others(CLIENTS[0]))
    waiting = first.start_shell(f"echo late > {target}/late && sync {target}/late")
    second.unpublish(volume, first.node_id)
    second.stage(volume, EXT4, second.publish(volume, EXT4))
    other = second.mount(volume, EXT4)
    assert second.read(other / "kept") == b"before\n"
    second.shell(f"echo after > {other}/kept; sync {other}/kept")
    assert waiting.poll() is None

    # It hears again what has happened, and what it had on its way changes nothing.
    net.networks.heal()
    assert waiting.wait(60) != 0
    stats = csi.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(target))
    eventually(lambda: first.call("NodeGetVolumeStats", stats).volume_condition.abnormal)
    first.unmount(volume)
    first.unstage(volume)
    second.unmount(volume)
    second.unstage(volume)
    second.unpublish(volume)
    # As it is on the volume, not in anybody's memory.
    target = second.use(volume, EXT4)
    assert second.read(target / "kept") == b"after\n"
    assert second.run("test", "!", "-e", str(target / "late")) == 0
    second.end_use(volume)
    second.delete(volume)
    for node in (first, second):
        assert (node.devices(), node.mounts(), node.loops()) == ([], [], [])
