"""A store that cannot start: of which one it is said that it is lost, and who believes it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chunkserver import lost
from chunkserver.settings import ChunkserverSettings
from curve_py.errors import BusyError
from curve_py.proto import common_pb2 as pb
from metaserver.domain.health_view import StoreState
from metaserver.service.health import Health

STORE, OTHER, CLUSTER = b"s" * 16, b"o" * 16, b"c" * 16


@pytest.fixture
def settings(tmp_path: Path) -> ChunkserverSettings:
    return ChunkserverSettings(
        secret_file=tmp_path / "secret",
        store_path=tmp_path,
        data_listen="127.0.0.1:9000",
        admin_listen="127.0.0.1:9001",
        metaservers=["127.0.0.1:1"],
    )


def place(path: Path, magic: bytes, *store_ids: bytes) -> None:
    """Two copies of a structure; the store's id is where it is in superblocks and anchors."""
    heads = [magic.ljust(16, b"\x01") + store_id for store_id in store_ids]
    path.write_bytes(b"".join(head.ljust(64 * 1024, b"\0") for head in heads))


def test_whose_store_it_was_is_kept_at_each_good_start(settings: ChunkserverSettings) -> None:
    assert lost.recall(settings) is None
    native: Any = SimpleNamespace(store_id=STORE, cluster_id=CLUSTER)
    lost.remember(settings, native)
    assert lost.recall(settings) == lost.Identity(STORE, CLUSTER)
    native.store_id = OTHER  # formatted anew
    lost.remember(settings, native)
    assert lost.recall(settings) == lost.Identity(OTHER, CLUSTER)
    for damage in ("", "{", "[]", '{"store_id": 7, "cluster_id": ""}', '{"store_id": "x"}'):
        (settings.store_path / "identity.json").write_text(damage)
        assert lost.recall(settings) is None


def test_only_what_still_names_the_store_is_it(settings: ChunkserverSettings) -> None:
    assert not lost.is_named(settings, STORE)  # nothing is there
    place(settings.data, b"CVSTORE1", STORE, STORE)
    assert lost.is_named(settings, STORE)
    assert not lost.is_named(settings, OTHER)
    place(settings.wal, b"CWAN", OTHER, STORE)  # the log of another: wrong devices
    assert not lost.is_named(settings, STORE)
    place(settings.wal, b"CWAN", STORE, STORE)
    assert lost.is_named(settings, STORE)
    # What is damaged beyond recognition says nothing; one copy of four is enough.
    place(settings.data, b"\xff" * 8, b"?" * 16, b"!" * 16)
    assert lost.is_named(settings, STORE)
    place(settings.wal, b"\xff" * 4, b"?" * 16, STORE)
    assert lost.is_named(settings, STORE)
    place(settings.wal, b"\xff" * 4, b"?" * 16, b"?" * 16)
    assert not lost.is_named(settings, STORE)
    settings.data.write_bytes(b"short")
    assert not lost.is_named(settings, STORE)


def test_a_store_that_is_heard_is_not_lost() -> None:
    clock = 0.0
    health = Health(lambda: clock, gone_after_seconds=100)
    health.check_silent(STORE)  # nobody has heard it
    health.record(STORE, 4, 0, pb.StoreReport(), 1, "h")
    with pytest.raises(BusyError, match="heard a moment ago"):
        health.check_silent(STORE)
    clock = 5.5
    health.check_silent(STORE)
    failure = "Damage."
    health.record(STORE, 0, 0, pb.StoreReport(failure=failure), 1, "h")
    assert health.state_of(STORE) is StoreState.FAILED
    health.check_silent(STORE)  # told again by the next start
    clock = 50.0
    assert health.state_of(STORE) is StoreState.FAILED
    health.record(STORE, 5, 0, pb.StoreReport(), 1, "h")  # and yet it starts
    assert health.state_of(STORE) is StoreState.UP
