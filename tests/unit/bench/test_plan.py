"""What is run: scenarios that lists name, systems that files describe. Nothing is started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from curve_py.cli.bench import scenarios
from curve_py.cli.bench.load import Latencies, series
from curve_py.cli.bench.slow_follower import _percentile
from curve_py.cli.bench.suites import SCENARIO, members, suite_directory
from curve_py.cli.bench.systems import OtherSystem, find_program
from curve_py.errors import ConfigError, CurveError, InvalidError, NotFoundError


def test_every_scenario_of_the_lists_is_there() -> None:
    named = [name for name in members(suite_directory(), ["targets"]) if name.startswith(SCENARIO)]
    assert [scenarios.checked(name) for name in named] == named
    assert {name.removeprefix(SCENARIO) for name in named} == {
        scenario.name for scenario in scenarios.SCENARIOS
    }
    with pytest.raises(NotFoundError, match="There are: idle"):
        scenarios.checked("scenario:absent")


def other(tmp_path: Path, **changes: object) -> OtherSystem:
    log = tmp_path / "log"
    say = [sys.executable, "-c", f"import sys; open({str(log)!r}, 'a').write(sys.argv[1] + ' ')"]
    content = {
        "name": "other 1",
        "directory": str(tmp_path),
        "fio": "/bin/true",
        "options": ["ioengine=rbd", "rbdname={volume}"],
        "create": [*say, "+{volume}:{mib}"],
        "remove": [*say, "-{volume}"],
        "environment": {"X": "1"},
        "processes": {"osd": [1, 2]},
    } | changes
    file = tmp_path / "system.json"
    file.write_text(json.dumps(content))
    return OtherSystem(file)


def test_another_system_is_what_its_file_says(tmp_path: Path) -> None:
    system = other(tmp_path)
    with system.volumes(2, 3 * 1024**2 - 1) as names, system.reach(names, "") as reached:
        assert names == ["bench-0", "bench-1"]
        assert reached.volumes[1] == ["ioengine=rbd", "rbdname=bench-1"]
        assert reached.environment == {"X": "1"}
    assert (tmp_path / "log").read_text() == "+bench-0:3 +bench-1:3 -bench-0 -bench-1 "
    assert system.processes() == {"osd": [1, 2]}
    assert system.undrained_bytes() is None
    with pytest.raises(InvalidError), system.reach(names, "nbd"):
        pass


def test_bad_descriptions_and_commands_are_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        OtherSystem(tmp_path / "absent")
    for bad in ("", "[]", "{}"):
        (tmp_path / "bad").write_text(bad)
        with pytest.raises(InvalidError):
            OtherSystem(tmp_path / "bad")
    with pytest.raises(InvalidError):
        other(tmp_path, processes={"osd": ["x"]})
    fails = other(tmp_path, create=[sys.executable, "-c", "raise SystemExit('no room')"])
    with pytest.raises(CurveError, match="no room"), fails.volumes(1, 1):
        pass


def test_a_program_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURVE_FLOOR", raising=False)
    assert find_program("CURVE_FLOOR", [tmp_path / "x", sys.executable], "floor").is_file()
    with pytest.raises(ConfigError, match="There is no floor"):
        find_program("CURVE_FLOOR", [tmp_path / "x"], "floor")
    monkeypatch.setenv("CURVE_FLOOR", str(tmp_path / "y"))
    with pytest.raises(ConfigError, match=r"There is no floor at .*y"):
        find_program("CURVE_FLOOR", [sys.executable], "floor")


def test_percentiles() -> None:
    assert _percentile(list(range(1000)), 99) == 990.0
    assert _percentile([5], 99) == 5.0


def test_what_a_load_did_over_time() -> None:
    quarter = 250_000_000
    one = Latencies([(0, 1000), (quarter - 5, 10), (2 * quarter, quarter * 9)])
    other = Latencies([(quarter, 5000), (-9000, 10)])
    # What ended before the begin or after the end is not shown.
    assert series([one, other], 0, 3 * quarter) == [
        (0.25, 4.0, 1.0),
        (0.5, 8.0, 5.0),
        (0.75, 0.0, 0.0),
    ]
