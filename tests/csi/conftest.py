"""A real cluster, and nodes with an agent and a driver; needs root, /dev/fuse and loop devices."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "cluster"))
sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from csi_harness import CsiNode, end_processes_of
from running_cluster import RunningCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """One metaserver and three chunkservers; every test leaves them running."""
    directory = Path(tempfile.mkdtemp(prefix="curve-csi-"))
    running = RunningCluster(directory / "c")
    running.store_size = "2GiB"
    try:
        running.up("--metaservers", "1")
        yield running
    finally:
        running.run("down")
        end_processes_of(directory)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_node(request: pytest.FixtureRequest) -> Iterator[Callable[..., CsiNode]]:
    """Nodes that do not run yet; whatever is left of them is taken away at the end."""
    made: list[CsiNode] = []

    def make(node_id: str, prefix: tuple[str, ...] = (), cluster: Path | None = None) -> CsiNode:
        """`cluster`: the directory of another cluster than that of all tests."""
        # Sockets have short paths.
        directory = Path(tempfile.mkdtemp(prefix="curve-node-"))
        if cluster is None:
            cluster = request.getfixturevalue("cluster").directory
        made.append(CsiNode(directory, cluster, node_id, prefix))
        return made[-1]

    yield make
    for node in made:
        node.remove()


@pytest.fixture
def node(make_node: Callable[..., CsiNode]) -> CsiNode:
    """One that runs. At the end nothing may be left of its volumes."""
    made = make_node("node-1")
    made.start()
    return made
