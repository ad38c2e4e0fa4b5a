"""`curve bench run` from end to end: a tiny suite through the fio engine, beside the floor.

No time is asserted; figures only have to be there and to fit together.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from running_cluster import RunningCluster

from curve_py.cli.bench.suites import suite_directory

BUILD = Path(os.environ.get("CURVE_BUILD", "build"))
FIO = Path("build/fio/fio").absolute()
ENGINE = BUILD.absolute() / "native/fio/fio-curve.so"
FLOOR = BUILD.absolute() / "tools/bench/floor/curve_floor"

needs_fio = pytest.mark.skipif(
    not (FIO.exists() and ENGINE.exists() and FLOOR.exists()),
    reason="fio, its engine or the floor is not built (tools/test --only native builds them)",
)

SUITE = """
#: title Tiny
#: volume 64MiB
#: runs 1
#: seconds 1
[global]
volume=${CURVE_BENCH_VOLUME}
randrepeat=0
norandommap=1
[tiny]
#: title tiny mixed
#: floor write
#: must iops >= 1
#: must iops/floor >= 0.0000001
rw=randrw
bs=4k
iodepth=8
"""


@needs_fio
def test_a_tiny_suite(
    cluster: RunningCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, program in {"FIO": FIO, "FIO_ENGINE": ENGINE, "FLOOR": FLOOR}.items():
        monkeypatch.setenv(f"CURVE_{name}", str(program))
    suite, report, page = tmp_path / "tiny.fio", tmp_path / "a.json", tmp_path / "a.html"
    suite.write_text(SUITE)
    command = ["bench", "run", str(suite), "--dir", str(cluster.directory), "--no-drain", "--floor"]
    command += ["--limit", "tiny:max_us=0.001", "--json", str(report), "--html", str(page)]
    done = cluster.run(*command, json=False)
    assert done.returncode == 1, done.stderr  # for the limit that was given
    assert "tiny mixed" in done.stdout
    assert "MISSED" in done.stdout
    assert "not kept: tiny:max_us." in done.stderr
    [result] = json.loads(report.read_text())["results"]
    [run], [floor] = result["runs"], result["beside"]["floor"]
    assert run["measures"]["iops"] > 0
    assert set(run["directions"]) == {"read", "write"}
    assert run["measures"]["chunkserver_cpu_us_per_io"] > 0
    assert run["series"]
    assert floor["measures"]["iops"] > 0
    assert [verdict["kept"] for verdict in result["verdicts"]] == [True, True, False]
    assert "<svg" in page.read_text()
    assert list(report.parent.glob("curve-bench-work-*")) == []
    assert [v for v in cluster.curve("volume", "list")["volumes"] if "bench" in v["name"]] == []

    command = ["bench", "run", str(suite), "--dir", str(cluster.directory), "--no-drain", "--check"]
    without = cluster.run(*command, json=False)
    assert without.returncode == 1
    assert "not kept: tiny:iops/floor (not measured)." in without.stderr

    unknown = cluster.run("bench", "run", str(suite), "--limit", "other:iops=1", json=False)
    assert unknown.returncode == 1
    assert "no job other" in unknown.stderr

    same = cluster.curve("bench", "compare", str(report), str(report))
    assert {figure["ratio"] for figure in same["figures"]} == {1.0}


@needs_fio
def test_plain_fio_reads_every_suite(tmp_path: Path) -> None:
    variables = {"CURVE_FIO_ENGINE": str(ENGINE), "CURVE_DIR": str(tmp_path)}
    variables |= {"CURVE_BENCH_VOLUME": "v", "CURVE_BENCH_SIZE": "1g", "CURVE_BENCH_SECONDS": "5"}
    suites = sorted(suite_directory().glob("*.fio"))
    assert suites
    for suite in suites:
        done = subprocess.run(
            [FIO, "--parse-only", suite],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{suite.name}: {done.stderr}"
