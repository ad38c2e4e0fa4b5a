"""csi-sanity, Kubernetes' own test of CSI drivers, against a real cluster and real devices."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from csi_harness import GIB, CsiNode

SANITY = Path(os.environ.get("CURVE_BUILD", "build")) / "go" / "bin" / "csi-sanity"
# What comes with snapshots, clones, groups and volumes that can be modified.
LATER = (
    "Snapshot",
    "GroupController",
    "ModifyVolume",
    "existing source",
    "volume source",
    "volume attribute class",
)
RAN_LEAST = 59


@pytest.mark.parametrize("access", ["mount", "block"])
def test_csi_sanity(node: CsiNode, access: str) -> None:
    assert SANITY.exists(), f"{SANITY} is missing; tools/test --only csi installs it"
    report = node.directory / "report.json"
    done = subprocess.run(
        [
            str(SANITY),
            f"--csi.endpoint=unix://{node.socket}",
            f"--csi.mountdir={node.directory}/target",
            f"--csi.stagingdir={node.directory}/stage",
            f"--csi.testvolumesize={GIB}",
            f"--csi.testvolumeexpandsize={2 * GIB}",
            f"--csi.testvolumeaccesstype={access}",
            "--csi.testnodevolumeattachlimit",
            f"--ginkgo.json-report={report}",
            "--ginkgo.no-color",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    specs = [
        (" ".join([*spec["ContainerHierarchyTexts"], spec["LeafNodeText"]]), spec["State"])
        for spec in json.loads(report.read_text())[0]["SpecReports"]
        if spec["LeafNodeType"] == "It"
    ]
    states = [state for _, state in specs]
    print(f"{access}: {states.count('passed')} passed, {states.count('skipped')} skipped")
    assert not [name for name, state in specs if state not in ("passed", "skipped", "pending")], (
        done.stdout[-6000:] + node.log("csi")
    )
    assert done.returncode == 0, done.stdout[-6000:]
    skipped = [name for name, state in specs if state == "skipped"]
    assert not [name for name in skipped if not any(word in name for word in LATER)]
    assert states.count("passed") >= RAN_LEAST
    assert node.devices() == []
    assert node.mounts() == []
    assert node.loops() == []
