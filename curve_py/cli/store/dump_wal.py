"""curve store dump-wal DIR."""

from __future__ import annotations

import json as json_module
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from curve_py.cli.options import JsonOption
from curve_py.cli.store.inspect import DataOption, WalOption, native, store_files


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    wal: WalOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Print the records of a stopped store's log, in order. With --json: one object per line."""
    files = store_files(directory, wal, data)
    sys.stdout.flush()
    if json:
        native().dump_wal(*files, sys.stdout.fileno())
        return
    receiving, sending = os.pipe()
    failure: list[Exception] = []

    def dump() -> None:
        try:
            native().dump_wal(*files, sending)
        except Exception as error:  # handed to the thread that waits
            failure.append(error)
        finally:
            os.close(sending)

    thread = threading.Thread(target=dump)
    thread.start()
    with open(receiving, encoding="utf-8") as lines:
        try:
            for line in lines:
                print(_sentence(json_module.loads(line)))
        finally:
            for _ in lines:  # the other side ends only when all of it is taken
                pass
            thread.join()
    if failure:
        raise failure[0]


def _sentence(record: dict[str, Any]) -> str:
    if record["type"] == "end":
        state = "damaged: " + record["damage"] if record["damaged"] else "whole"
        torn = ", torn tail" if record["torn_tail"] else ""
        return f"end {record['end_position']}: {record['records']} records, {state}{torn}"
    shown = ("entry", "command", "volume", "epoch", "chunk", "first_sector", "sectors")
    rest = " ".join(f"{name}={record[name]}" for name in shown if name in record)
    return (
        f"{record['position']:>12} {record['type']:<10} copyset={record['copyset']} "
        f"term={record['term']} index={record['index']} {rest}".rstrip()
    )
