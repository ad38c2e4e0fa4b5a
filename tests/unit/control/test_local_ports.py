"""The ports of a cluster on this machine."""

from pathlib import Path

import pytest

from curve_py.cli.local import ports
from curve_py.cli.local.cluster import LocalCluster
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import UnavailableError


def test_no_two_services_get_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few to choose from: what is drawn twice would show.
    monkeypatch.setattr(ports, "_is_free", lambda port: True)
    monkeypatch.setattr(ports, "_first_ephemeral_port", lambda: ports._FIRST_PORT + 21)
    local = LocalCluster(ClusterDirectory(tmp_path))
    assert len(local.describe(3, 3, 64 * 1024**2).addresses()) == 18
    assert len(local.describe(3, 4, 64 * 1024**2).addresses()) == 21
    assert len(local.describe(3, 4, 64 * 1024**2).addresses()) == 21  # nothing new
    with pytest.raises(UnavailableError, match="no 3 free ports"):
        local.describe(3, 5, 64 * 1024**2)
