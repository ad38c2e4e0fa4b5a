"""Exports over NBD, with clients that are not ours: nbdinfo, qemu-io, qemu-img."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20


def client(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uri(cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "create", "disk", "1GiB")
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"curve-test-{os.getpid()}.sock"
    export = cluster.curve("volume", "export", "disk", "--nbd", f"unix:{path}")["export"]
    yield export["uri"]
    cluster.curve("volume", "unexport", "disk")
    assert not path.exists()


def test_what_nbdinfo_says(uri: str) -> None:
    said = json.loads(client("nbdinfo", "--json", uri))["exports"][0]
    assert said["export-name"] == "disk"
    assert said["export-size"] == 1 << 30
    assert said["can_multi_conn"]
    assert said["can_fast_zero"]
    assert (said["block_size_minimum"], said["block_size_preferred"]) == (512, 4096)


def test_what_qemu_io_writes(uri: str) -> None:
    said = client(
        "qemu-io", "-f", "raw", "-c", "write -P 7 15M 2M", "-c", "read -P 7 15M 2M",
        "-c", "discard 15M 64k", "-c", "read -P 0 15M 64k", "-c", "write -P 9 512 512",
        "-c", "read -P 9 512 512", "-c", "flush", uri,
    )  # fmt: skip
    assert "Pattern verification failed" not in said


def test_an_image_goes_there_and_back(uri: str, tmp_path: Path) -> None:
    image, back = tmp_path / "image", tmp_path / "back"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
        for at in (100 * 1024, 15 * MIB + 1024, 40 * MIB):
            file.seek(at)
            file.write(os.urandom(3 * MIB))
    client("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), uri)
    client("nbdcopy", uri, str(back))
    assert back.read_bytes()[: 64 * MIB] == image.read_bytes()


def test_several_volumes_at_one_address_share_a_process(cluster, uri: str) -> None:  # type: ignore[no-untyped-def]
    address = "unix:" + uri.partition("socket=")[2]
    cluster.curve("volume", "create", "second", "64MiB")
    export = cluster.curve("volume", "export", "second", "--nbd", address, "--read-only")["export"]
    exports = {v["name"]: v["exports"] for v in cluster.curve("volume", "list")["volumes"]}
    assert exports["disk"][0]["pid"] == exports["second"][0]["pid"] == export["pid"]
    assert json.loads(client("nbdinfo", "--json", export["uri"]))["exports"][0]["is_read_only"]
    assert cluster.run("volume", "export", "second", "--nbd", address).returncode == 1
    cluster.curve("volume", "unexport", "second")
    assert cluster.run("volume", "unexport", "second").returncode == 1


def test_after_a_restart_up_says_what_was_exported(cluster, uri: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    address = f"unix:{tmp_path}/ended.sock"
    cluster.curve("volume", "create", "ended", "64MiB")
    pid = cluster.curve("volume", "export", "ended", "--nbd", address, "--shared")["export"]["pid"]
    assert cluster.up()["exports_ended"] == []
    os.kill(pid, signal.SIGKILL)
    ended = cluster.up()["exports_ended"]
    assert [(e["volume"], e["address"], e["mode"]) for e in ended] == [("ended", address, "shared")]
    done = cluster.run("up", json=False)
    assert f"curve volume export ended --nbd {address} --shared" in done.stderr, done.stderr
    cluster.curve("volume", "export", "ended", "--nbd", address)
    assert cluster.up()["exports_ended"] == []
    cluster.curve("volume", "unexport", "ended")
    assert cluster.up()["exports_ended"] == []


def test_an_export_in_use_grows_for_new_connections(cluster, uri: str) -> None:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "resize", "disk", "2GiB")
    for _ in range(100):
        if json.loads(client("nbdinfo", "--json", uri))["exports"][0]["export-size"] == 2 << 30:
            return
    raise AssertionError("the export keeps its old size")


def test_unexport_ends_what_would_never_end(cluster, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cluster.curve("volume", "create", "stuck", "64MiB")
    nbd = f"unix:{tmp_path}/stuck.sock"
    options = ("--nbd", nbd, "--metrics", "127.0.0.1:0")
    export = cluster.curve("volume", "export", "stuck", *options)["export"]
    client("qemu-io", "-f", "raw", "-c", "write 0 64k", export["uri"])
    cluster.kill(*list(cluster.pids("chunkserver"))[:2])
    metrics = f"http://{export['http_address']}/metrics"
    try:
        writer = subprocess.Popen(
            ["qemu-io", "-f", "raw", "-c", "write 0 64k", export["uri"]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while True:  # until the write is on its way
            with urllib.request.urlopen(metrics) as answer:
                if 'curve_client_inflight{volume="stuck"} 1.0' in answer.read().decode():
                    break
            assert writer.poll() is None
            time.sleep(0.02)
        done = cluster.run("volume", "unexport", "stuck", json=False)
        assert done.returncode == 0, done.stderr
        assert "1 requests did not end within 5 s" in " ".join(done.stdout.split())
        assert "write failed" in writer.communicate(timeout=60)[0]
    finally:
        cluster.up()
    cluster.curve("volume", "delete", "stuck")
