"""The console script `curve`: the tree of verbs, and how an error ends it.

Invariants: an error is one sentence and a remedy, never a trace, and the exit code is 1 (2 for a
wrong command line). Each verb is a file; this one only names them.
"""

from __future__ import annotations

import os
import sys

import typer

from curve_py.cli.bench import compare, failover, rebuild
from curve_py.cli.bench import run as bench_run
from curve_py.cli.chunkserver import drain, list_chunkservers, remove, undrain
from curve_py.cli.cluster import down, status, up
from curve_py.cli.copyset import list_copysets, show_copyset
from curve_py.cli.internal import exporter, map_feed
from curve_py.cli.node import doctor
from curve_py.cli.output import PROGRAM, Output
from curve_py.cli.scrub import start as scrub_start
from curve_py.cli.scrub import status as scrub_status
from curve_py.cli.store import dump_wal, inspect
from curve_py.cli.task import list_tasks
from curve_py.cli.volume import (
    attach,
    attachments,
    check,
    create,
    delete,
    detach,
    export,
    list_volumes,
    resize,
    show,
    trace,
    unexport,
)
from curve_py.errors import CurveError

app = typer.Typer(
    name=PROGRAM,
    help="Distributed block storage: clusters, volumes, exports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.run)
app.command("down")(down.run)
app.command("status")(status.run)

volume = typer.Typer(help="Volumes, their devices and exports.", no_args_is_help=True)
volume.command("create")(create.run)
volume.command("list")(list_volumes.run)
volume.command("show")(show.run)
volume.command("resize")(resize.run)
volume.command("delete")(delete.run)
volume.command("attach")(attach.run)
volume.command("detach")(detach.run)
volume.command("attachments")(attachments.run)
volume.command("export")(export.run)
volume.command("unexport")(unexport.run)
volume.command("check")(check.run)
volume.command("trace")(trace.run)
app.add_typer(volume, name="volume")

chunkserver = typer.Typer(help="Chunkservers of the cluster.", no_args_is_help=True)
chunkserver.command("list")(list_chunkservers.run)
chunkserver.command("drain")(drain.run)
chunkserver.command("undrain")(undrain.run)
chunkserver.command("remove")(remove.run)
app.add_typer(chunkserver, name="chunkserver")

task = typer.Typer(help="What the cluster does by itself, and why.", no_args_is_help=True)
task.command("list")(list_tasks.run)
app.add_typer(task, name="task")

copyset = typer.Typer(help="Copysets: leader, replicas, lag.", no_args_is_help=True)
copyset.command("list")(list_copysets.run)
copyset.command("show")(show_copyset.run)
app.add_typer(copyset, name="copyset")

scrub = typer.Typer(help="Reading stores through, in the background.", no_args_is_help=True)
scrub.command("start")(scrub_start.run)
scrub.command("status")(scrub_status.run)
app.add_typer(scrub, name="scrub")

store = typer.Typer(help="One store whose chunkserver is stopped.", no_args_is_help=True)
store.command("inspect")(inspect.run)
store.command("dump-wal")(dump_wal.run)
app.add_typer(store, name="store")

bench = typer.Typer(help="Measurements.", no_args_is_help=True)
bench.command("run")(bench_run.run)
bench.command("compare")(compare.run)
bench.command("failover")(failover.run)
bench.command("rebuild")(rebuild.run)
app.add_typer(bench, name="bench")

node = typer.Typer(help="This machine as a user of volumes.", no_args_is_help=True)
node.command("doctor")(doctor.run)
app.add_typer(node, name="node")

internal = typer.Typer(help="For programs of this project.", hidden=True, no_args_is_help=True)
internal.command("map-feed")(map_feed.run)
internal.command("exporter")(exporter.run)
app.add_typer(internal, name="internal")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    output = Output(as_json="--json" in given)
    try:
        app(given, prog_name=PROGRAM)
    except SystemExit as end:  # Typer has printed what there is to say
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except CurveError as error:
        output.error(error)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        output.error(CurveError(f"{error.strerror or error}{where}."))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
