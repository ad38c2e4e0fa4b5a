"""curve store inspect DIR."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from curve_py.cli.options import JsonOption
from curve_py.cli.output import Output
from curve_py.errors import ConfigError, NotFoundError
from curve_py.sizes import format_size

_BLOCK_BYTES = 65536


def native() -> Any:
    try:
        return importlib.import_module("curve_py._native.store")
    except ImportError as error:
        raise ConfigError(
            f"The native part cannot be loaded: {error}.", "Install the package again."
        ) from None


WalOption = Annotated[
    Path | None, typer.Option("--wal", metavar="PATH", help="The log, where it is not DIR/wal.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="The data, where it is not DIR/data.")
]


def store_files(directory: Path, wal: Path | None, data: Path | None) -> tuple[str, str]:
    """Log and data. Raises NotFoundError."""
    files = wal or directory / "wal", data or directory / "data"
    for file in files:
        if not file.exists():
            raise NotFoundError(
                f"There is no {file}.", "Name the store's directory, or its devices."
            )
    return str(files[0]), str(files[1])


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    wal: WalOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a stopped store holds: identity, checkpoint, log, copysets, fences. Read only."""
    found = native().inspect_store(*store_files(directory, wal, data))
    output = Output(json)
    if json:
        output.result(found)
        return
    log = found["wal"]
    output.table(
        found,
        ("property", "value"),
        [
            ("store", found["store"]),
            ("cluster", found["cluster"]),
            ("incarnation", found["incarnation"]),
            ("checkpoint", found["checkpoint"]),
            (
                "blocks",
                f"{found['blocks_mapped']} of {found['blocks_total']} mapped"
                f" ({format_size(found['blocks_mapped'] * _BLOCK_BYTES)})",
            ),
            ("pages", f"{found['pages_used']} of {found['pages_total']}"),
            ("pages lost", found["pages_lost"]),
            ("log", log.get("error") or f"{log['records']} records in {log['appends']} appends"),
            ("log damage", log.get("damage") or "none"),
        ],
    )
    output.table(
        found,
        ("copyset", "#term", "#applied", "#commit", "#chunks", "#blocks", "#fences", "state"),
        [
            (
                each["copyset"],
                each["term"],
                each["applied_index"],
                each["commit_index"],
                each["chunks"],
                each["blocks"],
                len(each["fences"]),
                "damaged"
                if each["damaged"]
                else "being filled"
                if each["being_filled"]
                else "whole",
            )
            if "error" not in each
            else (each["copyset"], *["-"] * 6, each["error"])
            for each in found["copysets"]
        ],
        empty="It holds no copyset.",
    )
