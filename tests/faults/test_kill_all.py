"""All six processes killed at once in mid write; tools/kill-all does ten rounds of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "kill-all"


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--rounds", "2", "--seconds", "1.5"]
    done = subprocess.run(
        [*command, "--dir", str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", 0 wrong, 0 errors") == 2
