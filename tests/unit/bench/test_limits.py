"""Which limits count for a job, and what becomes of those that nothing was measured for."""

from __future__ import annotations

import pytest

from curve_py.cli.bench import scenarios
from curve_py.cli.bench.measure import Settings
from curve_py.cli.bench.report import missed
from curve_py.cli.bench.scenarios import SCENARIOS, Scenario
from curve_py.cli.bench.suites import Limit
from curve_py.cli.output import Output
from curve_py.errors import UnsupportedError


def test_a_limit_that_is_given_takes_the_place_of_the_jobs_own() -> None:
    own = [Limit("iops", "floor", False, 0.4), Limit("max_us", "", True, 5.0)]
    stricter, more = Limit("iops", "floor", False, 0.9), Limit("p50_us", "", True, 1.0)
    settings = Settings(
        limits=[("a", stricter), ("b", Limit("max_us", "", True, 9.0)), ("a", more)]
    )
    assert settings.limits_for("a", own) == [own[1], stricter, more]
    assert Settings().limits_for("a", own) == own


@pytest.mark.parametrize("allowed", [True, False])
def test_a_scenario_that_is_not_measured_keeps_no_limit(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left out, or not possible on this machine."""

    def impossible(output: Output, settings: Settings) -> list[object]:
        raise UnsupportedError("No cgroups here.")

    one = SCENARIOS[0]
    monkeypatch.setattr(
        scenarios,
        "SCENARIOS",
        (Scenario(one.name, one.title, impossible, one.limits),),  # type: ignore[arg-type]
    )
    run = scenarios.left_out if allowed else scenarios.measure
    result = run("scenario:idle", Output(True), Settings())
    assert missed([result]) == ["idle:most_cpu_percent (not measured)"]
