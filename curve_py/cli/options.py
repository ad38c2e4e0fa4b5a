"""Options that many verbs share, with one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DirOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="D",
        help="Directory of the cluster; by default $CURVE_DIR or ~/.local/state/curve/cluster.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object (docs/cli.md).")]
SharedOption = Annotated[
    bool, typer.Option("--shared", help="Attach beside other shared attachments.")
]
ReadOnlyOption = Annotated[bool, typer.Option("--read-only", help="Attach for reading only.")]
