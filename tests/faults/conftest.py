"""Clusters for the tests of faults; every process that a test started is stopped by it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faults_harness import Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three metaservers and three chunkservers that run; tests may kill them."""
    made = Servers(tmp_path_factory.mktemp("cluster"))
    try:
        made.up()
        yield made
    finally:
        made.remove()


@pytest.fixture
def healthy(servers: Servers) -> Iterator[Servers]:
    """The same, whole before and after the test."""
    servers.up()
    servers.caught_up()
    yield servers
    servers.all_run()
