"""Medians, limits, JSON and the page with plots."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from curve_py.cli.bench.compare import compare
from curve_py.cli.bench.html import page, write_html
from curve_py.cli.bench.report import (
    Report,
    Result,
    Sample,
    format_measure,
    limit_rows,
    load,
    missed,
    result_row,
    summarise,
    to_json,
)
from curve_py.cli.bench.suites import Limit
from curve_py.cli.bench.svg import log_ticks, round_ticks, short
from curve_py.errors import CurveError, InvalidError, NotFoundError


def sample(iops: float, **more: float) -> Sample:
    figures = {"iops": iops, "mib_per_second": iops / 256, "mean_us": 1e6 / iops, "max_us": 9000.0}
    figures |= {"p50_us": 100.0, "p90_us": 200.0, "p99_us": 300.0, "p999_us": 900.0} | more
    return Sample(figures, series=[(0.25, iops, 900.0), (0.5, iops, 9000.0)])


def result(depth: int = 1) -> Result:
    made = Result("s", f"job-{depth}", f"4k <write>, depth {depth}", [])
    made.options = {"rw": "randwrite", "block_bytes": 4096, "depth": depth, "volumes": 1}
    made.runs = [sample(1000.0 * depth), sample(3000.0 * depth), sample(2000.0 * depth)]
    made.beside = {"floor": [sample(4000.0 * depth), sample(5000.0 * depth)]}
    made.runs[0].events = [(0.3, "killed & gone")]
    return made


def report() -> Report:
    results = [result(1), result(32)]
    for one in results:
        summarise(
            one,
            [
                Limit("iops", "floor", False, 0.4, 0.9),
                Limit("p999_us", "p50_us", True, 8.0),
                Limit("max_us", "", True, 10_000.0),
                Limit("absent", "", True, 1.0),
            ],
        )
    return Report("curve", "0.1", 1_700_000_000_000, ["bench", "run"], {"load": 0.5}, results)


def test_medians_spread_and_verdicts() -> None:
    one = report().results[0]
    assert one.median["iops"] == 2000.0
    assert one.spread["iops"] == 1.0
    ratio, own, absolute, absent = one.verdicts
    assert (ratio.baseline, ratio.kept, ratio.reached) == (4500.0, True, False)
    assert ratio.value == pytest.approx(2000 / 4500)
    assert (own.value, own.kept, own.reached) == (9.0, False, None)
    assert (absolute.value, absolute.kept) == (9000.0, True)
    assert (absent.value, absent.kept) == (None, None)


def test_which_limits_are_missed() -> None:
    whole = report()
    assert missed(whole.results) == [
        "job-1:p999_us/p50_us",
        "job-1:absent (not measured)",
        "job-32:p999_us/p50_us",
        "job-32:absent (not measured)",
    ]
    assert missed(whole.results, []) == []
    absent = Limit("absent", "", True, 1.0)
    assert missed(whole.results, [("job-1", absent)]) == ["job-1:absent (not measured)"]
    given = Limit("p999_us", "p50_us", True, 8.0)
    assert missed(whole.results, [("job-32", given)]) == ["job-32:p999_us/p50_us"]
    assert missed(whole.results, [("job-1", Limit("iops", "", False, 1.0))]) == []


def test_rows_for_people() -> None:
    whole = report()
    assert limit_rows(whole.results)[0] == (
        "4k <write>, depth 1",
        "iops",
        "4,500 IOPS",
        "2,000 IOPS",
        "0.44",
        ">= 0.4 x",
        ">= 0.9 x",
        "kept",
    )
    assert limit_rows(whole.results)[1][-1] == "MISSED"
    assert limit_rows(whole.results)[3][-1] == "not measured"
    assert result_row(whole.results[0])[:3] == ("4k <write>, depth 1", "2,000", "8")
    assert format_measure("mean_us", 1234.0) == "1.23 ms"
    assert format_measure("wal_left_bytes", 1024.0**2) == "1.0 MiB"
    assert format_measure("iops", None) == "-"


def test_json_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(to_json(report()))
    assert to_json(load(path)) == to_json(report())
    for bad in ("", "[]", "{}", '{"format": 1}', '{"format": 99, "results": []}'):
        path.write_text(bad)
        with pytest.raises(InvalidError):
            load(path)
    with pytest.raises(NotFoundError):
        load(tmp_path / "absent")


def test_what_two_reports_have_in_common() -> None:
    a, b = report(), report()
    b.results = [copy.deepcopy(b.results[0])]
    b.results[0].median["iops"] = 3000.0
    rows = {row["measure"]: row for row in compare(a, b)}
    assert {row["name"] for row in rows.values()} == {"job-1"}
    assert rows["iops"]["ratio"] == 1.5
    assert "processes_cpu_us_per_io" not in rows


class _Tags(HTMLParser):
    """Every element is closed in its order; counts them."""

    void = frozenset({"meta", "br", "line", "circle", "rect", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("count", [1, 2])
def test_the_page_is_whole_and_needs_nothing_else(count: int) -> None:
    text = page([report()] * count)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    # Depth against IOPS, percentiles, two jobs over time; and what is compared.
    assert tags.count["svg"] == 4 * count + (3 if count == 2 else 0)
    assert not re.search(r"(src|href)=|url\(|https?://", text)
    assert "4k &lt;write&gt;" in text
    assert "killed &amp; gone" in text
    assert "NaN" not in text
    assert "inf" not in re.sub(r"[a-z]inf|inf[a-z]", "", text)


def test_an_empty_report_has_a_page() -> None:
    empty = report()
    empty.results = []
    tags = _Tags()
    tags.feed(page([empty]))
    assert "svg" not in tags.count


def test_ticks() -> None:
    assert round_ticks(0, 9500) == [0, 2000, 4000, 6000, 8000]
    assert round_ticks(5, 5) == [5]
    assert log_ticks(8.0, 2000.0) == [10.0, 100.0, 1000.0]
    assert [short(x) for x in (0.5, 12_345, 2_000_000)] == ["0.5", "12.3k", "2M"]


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CurveError, match="cannot be written"):
        write_html(tmp_path, [report()])
