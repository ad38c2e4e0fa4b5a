"""Making a store: the native one, on real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkserver.settings import ChunkserverSettings
from chunkserver.store import format_store
from curve_py.service.secret import create_secret

_DATA_BYTES = 64 * 1024**2


@pytest.mark.parametrize("preallocation", ["falloc", "full"])
def test_full_preallocation_writes_all_of_the_data_once(tmp_path: Path, preallocation: str) -> None:
    create_secret(tmp_path / "secret")
    data = tmp_path / "store" / "data"
    data.parent.mkdir()
    data.write_bytes(b"left here before" * (_DATA_BYTES // 16))
    settings = ChunkserverSettings(
        secret_file=tmp_path / "secret",
        store_path=data.parent,
        data_listen="127.0.0.1:1",
        admin_listen="127.0.0.1:2",
        metaservers=["127.0.0.1:3"],
        format=True,
        cluster_id="6f1c4c2e-0000-4000-8000-000000000001",
        data_bytes=_DATA_BYTES,
        wal_bytes=64 * 1024**2,
        preallocation=preallocation,
    )
    assert len(format_store(settings)) == 16
    left = data.read_bytes().count(b"left here before")
    assert left == 0 if preallocation == "full" else left > _DATA_BYTES // 16 // 2
