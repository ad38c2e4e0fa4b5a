"""curve node doctor."""

from __future__ import annotations

from dataclasses import asdict

from curve_py.cli.options import JsonOption
from curve_py.cli.output import Output
from curve_py.client.doctor import examine


def run(json: JsonOption = False) -> None:
    """Say what this machine has for block devices, what would be chosen, and why."""
    found = examine()
    Output(json).table(
        {**asdict(found), "findings": [asdict(finding) for finding in found.findings]},
        ("what", "", "found"),
        [
            *(
                (f.name, "ok" if f.ok else "-", f"{f.detail} {f.remedy}".strip())
                for f in found.findings
            ),
            ("device type", found.chosen or "-", found.reason),
            ("replaceable", "yes" if found.replaceable else "no", found.replaceable_detail),
        ],
    )
