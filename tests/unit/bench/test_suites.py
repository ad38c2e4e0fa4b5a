"""Suites: what is in the comments of a job file, limits, lists, and those of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from curve_py.cli.bench.suites import (
    SCENARIO,
    Limit,
    add_limit,
    load_suite,
    members,
    parse_given_limit,
    parse_limit,
    parse_suite,
    suite_directory,
    suite_names,
)
from curve_py.errors import InvalidError, NotFoundError

TEXT = """; words for people
#: title Some jobs
#: volume 64MiB
#: runs 2
[global]
ioengine=external:${CURVE_FIO_ENGINE}
randrepeat=0

[one]
#: title the first
#: must mean_us/floor <= 1.7
#: goal mean_us/floor <= 1.35
#: must p999_us/p50_us <= 8
rw=randwrite
bs=16k
iodepth=4

[two]
#: floor writers/3
#: seconds 180
#: volumes 10
#: export nbd
rw=randread
# fio's own comment
[three]
#: beside engine
rw=read
"""


def test_a_suite_says_beside_each_job_what_is_kept() -> None:
    suite = parse_suite("s", TEXT)
    assert (suite.title, suite.volume_bytes, suite.runs) == ("Some jobs", 64 * 1024**2, 2)
    one, two, three = suite.jobs
    assert one.title == "the first"
    assert one.options["randrepeat"] == "0"
    assert (one.block_bytes, one.depth, one.writes, one.floor) == (16384, 4, True, "write")
    assert one.limits == [
        Limit("mean_us", "floor", True, 1.7, 1.35),
        Limit("p999_us", "p50_us", True, 8.0),
    ]
    assert (two.floor, two.seconds, two.volumes, two.export) == ("writers", 180.0, 10, "nbd")
    assert two.floor_share == pytest.approx(1 / 3)
    assert (two.title, two.depth, two.writes) == ("two", 1, False)
    assert (three.beside, three.floor) == ("engine", "")  # one baseline is enough


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("[a]\n#: must fast\nrw=read", "line 2: 'fast' is not a limit"),
        ("[a]\n#: nonsense 1\nrw=read", "line 2: 'nonsense 1' is not known here"),
        ("[a]\n#: volume 1GiB\nrw=read", "line 2"),
        ("#: volume much\n[a]\nrw=read", "line 1"),
        ("#: runs few\n[a]\nrw=read", "line 1"),
        ("[a]\nbs=4k", "job a has no rw="),
        ("[global]\nrw=read", "has no job"),
    ],
)
def test_a_bad_suite_is_an_error_with_its_line(bad: str, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_suite("bad", bad)
    assert words in str(caught.value)


def test_limits() -> None:
    assert parse_limit("iops >= 5000") == Limit("iops", "", False, 5000.0)
    assert parse_given_limit("a-1:mean_us=600") == ("a-1", Limit("mean_us", "", True, 600.0))
    assert parse_given_limit("a:iops/floor=0.9") == ("a", Limit("iops", "floor", False, 0.9))
    for bad in ("iops=1", "a:iops", "a:=3", "a:iops=many", ":iops=1"):
        with pytest.raises(InvalidError):
            parse_given_limit(bad)


def test_must_and_goal_of_a_figure_are_one_limit_in_any_order() -> None:
    limits: list[Limit] = []
    add_limit(limits, parse_limit("iops/floor >= 0.9", goal=True))
    add_limit(limits, parse_limit("iops/floor >= 0.5"))
    assert limits == [Limit("iops", "floor", False, 0.5, 0.9)]


def test_every_suite_of_the_package_is_good() -> None:
    directory = suite_directory()
    names = suite_names(directory)
    assert {"burst", "reads", "large", "sustained", "gate", "targets"} <= set(names)
    seen: set[str] = set()
    for name in members(directory, names):
        if name.startswith(SCENARIO):
            continue
        suite = load_suite(directory, name)
        assert suite.title
        jobs = {job.name for job in suite.jobs}
        assert not jobs & seen, "the name of a job is enough to give it a limit"
        seen |= jobs
        for job in suite.jobs:
            # So that plain fio can run it.
            assert job.options["volume"] == "${CURVE_BENCH_VOLUME}"
            assert job.options["runtime"] == "${CURVE_BENCH_SECONDS}"


def test_lists_are_replaced_by_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "all.list").write_text("a  # words\n\nscenario:x\nmore\n")
    (tmp_path / "more.list").write_text("b\na\n")
    assert members(tmp_path, ["b", "all"]) == ["b", "a", "scenario:x"]
    with pytest.raises(NotFoundError) as caught:
        load_suite(tmp_path, "absent")
    assert "There are: all, more." in str(caught.value)
