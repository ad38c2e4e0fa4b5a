"""What fio, the floor and /proc say, and what is made of it. No time is measured here."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from curve_py.cli.bench import floor, host
from curve_py.cli.bench.fio import job_file, parse
from curve_py.cli.bench.host import Watch, _Snapshot
from curve_py.cli.bench.suites import Job
from curve_py.errors import CurveError, InternalError


def fio_output(**changes: object) -> str:
    latency = {
        "mean": 250_000.0,
        "max": 9_000_000,
        "percentile": {"50.000000": 200_000, "99.900000": 5_000_000},
    }
    part = {
        "total_ios": 1000,
        "io_bytes": 4_096_000,
        "runtime": 500,
        "iops": 2000.0,
        "bw_bytes": 8_192_000,
        "lat_ns": latency,
    }
    nothing = dict.fromkeys(part, 0) | {"lat_ns": {"mean": 0.0, "max": 0}}
    job = {"jobname": "a", "error": 0, "read": nothing, "write": part, "mixed": part} | changes
    return "words before\n" + json.dumps({"timestamp_ms": 100_900, "jobs": [job]})


def test_what_fio_says() -> None:
    iops = "100250, 1900, 1, 0, 0\n100500, 2100, 1, 0, 0\n100501, 10, 0, 0, 0\n"
    longest = "100250, 800000, 1, 0, 0\n100500, 9000000, 1, 0, 0\n"
    done = parse(fio_output(), iops, longest)
    assert done.measures == {
        "iops": 2000.0,
        "mib_per_second": 7.8125,
        "mean_us": 250.0,
        "p50_us": 200.0,
        "p999_us": 5000.0,
        "max_us": 9000.0,
    }
    # It ends with the last window, not with fio; what two directions did in a window is added.
    assert (done.begin_ns, done.end_ns) == (100_000_000_000, 100_500_000_000)
    assert done.series == [(0.25, 1900.0, 800.0), (0.5, 2110.0, 9000.0)]
    assert (done.ios, done.user_bytes, done.written_bytes) == (1000, 4_096_000, 4_096_000)
    assert done.directions == {}


def test_without_logs_it_ends_with_fio() -> None:
    assert parse(fio_output()).end_ns == 100_900_000_000


def test_bad_output_of_fio_is_an_error() -> None:
    for bad in ("", "nothing", "{}", '{"jobs": []}', '{"jobs": [{"error": 0}]}'):
        with pytest.raises(InternalError):
            parse(bad)
    with pytest.raises(CurveError, match="I/O error: Input/output error"):
        parse(fio_output(error=5))


def test_the_job_file_has_the_systems_options_for_variables() -> None:
    job = Job("a", options={"ioengine": "external:${CURVE_FIO_ENGINE}", "rw": "read", "bs": "4k"})
    one = job_file(job, [["ioengine=rbd", "rbdname=v"]], 1024, 7.5).splitlines()
    assert "ioengine=external:${CURVE_FIO_ENGINE}" not in one
    assert {"rw=read", "bs=4k", "size=1024", "runtime=7.5", "[a]", "rbdname=v"} <= set(one)
    two = job_file(job, [["volume=x"], ["volume=y"]], 1024, 0).splitlines()
    assert {"[a-0]", "volume=x", "[a-1]", "volume=y", "group_reporting=1"} <= set(two)
    assert not any(line.startswith("runtime") for line in two)


def test_what_the_floor_says() -> None:
    names = "iops mib_per_second mean_us p50_us p90_us p99_us p999_us max_us cpu_us_per_io"
    result = dict.fromkeys(names.split(), 30.0) | {"operations": 60, "seconds": 2.0}
    measures, operations, seconds = floor.parse(json.dumps(result), 1 / 3)
    assert (measures["iops"], measures["mean_us"]) == (10.0, 30.0)  # a share is one of rates
    assert measures["processes_cpu_us_per_io"] == 30.0
    assert (operations, seconds) == (60.0, 2.0)
    with pytest.raises(InternalError):
        floor.parse('{"iops": 1}', 1.0)


def test_what_proc_says() -> None:
    assert host.parse_stat("cpu  10 1000 3 50 60 1 2 900 0 0\ncpu0 1 2\n") == 16.0
    stat = "123 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20 0 1 0 100\n"
    assert host.parse_process_stat(stat) == 42.0
    disks = " 254 0 vda 1 2 3 4 5 6 700 8 0 9 9\n 254 1 vda1 1 2 3 4 5 6 8 8 0 9 9\n"
    assert host.parse_diskstats(disks, (254, 1)) == 8 * 512
    assert host.parse_diskstats(disks, (8, 0)) is None


def test_spans_are_interpolated(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    second = 1_000_000_000
    watch._snapshots = [
        _Snapshot(0, {"cpu": 0.0, "disk": 0.0, "cpu:chunkserver:7": 5.0}),
        _Snapshot(2 * second, {"cpu": 4.0, "disk": 100.0, "cpu:chunkserver:7": 6.0}),
        _Snapshot(
            4 * second,
            {"cpu": 4.0, "disk": 300.0, "cpu:chunkserver:7": 7.0, "cpu:client:9": 0.5},
        ),
    ]
    usage = watch.between(second, 4 * second)
    assert (usage.seconds, usage.cpu_seconds, usage.disk_bytes) == (3.0, 2.0, 250.0)
    assert usage.roles == {"chunkserver": 1.5, "client": 0.5}  # who came later did all of it here
    whole = watch.between(-second, 9 * second)
    assert (whole.seconds, whole.cpu_seconds) == (4.0, 4.0)


def test_what_was_spent_before_does_not_count(tmp_path: Path) -> None:
    while time.process_time() < 1.0:
        pass
    with Watch(tmp_path) as watch:
        watch.follow("self", os.getpid())
        begin = time.time_ns()
        time.sleep(0.15)
        usage = watch.between(begin, time.time_ns())
    assert usage.roles["self"] < 0.5


def test_this_machine_can_be_watched(tmp_path: Path) -> None:

    with Watch(tmp_path) as watch:
        watch.follow("self", os.getpid())
        begin = time.time_ns()
        deadline = time.process_time() + 0.05
        while time.process_time() < deadline:
            pass
    usage = watch.between(begin, time.time_ns())
    assert usage.roles["self"] >= 0.0
    assert usage.cpu_seconds >= 0.0
