"""The helper process: takes commands on a socket, runs each on a thread, answers when it is done.

A request is one line of JSON, {"id", "command", "arguments"}; an answer {"id", "result"} or {"id",
"error": {"kind", "message"}}, in the order in which they end. It ends when the socket does and what
was begun has ended: a mkfs is not left half done because a driver was replaced. A command that
hangs in the kernel keeps its thread, not the others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
import threading
from typing import Any

from csi_driver.mounter.commands import COMMANDS, CommandError
from curve_py.service.structured_log import set_up_logging

_log = logging.getLogger(__name__)


class _Answers:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, answer: dict[str, Any]) -> None:
        line = json.dumps(answer).encode() + b"\n"
        with self._lock:
            self._connection.sendall(line)


def _work(request: dict[str, Any], answers: _Answers) -> None:
    answer: dict[str, Any] = {"id": request["id"]}
    try:
        answer["result"] = COMMANDS[request["command"]](**request["arguments"])
    except CommandError as error:
        answer["error"] = {"kind": error.kind, "message": error.message}
    except Exception as error:
        _log.exception("a command failed", extra={"command": request["command"]})
        answer["error"] = {"kind": "failed", "message": f"{request['command']}: {error}"}
    with contextlib.suppress(OSError):  # the driver has gone
        answers.send(answer)


def serve(connection: socket.socket) -> None:
    """Until the other side closes."""
    answers = _Answers(connection)
    with connection.makefile("rb") as requests:
        for line in requests:
            work = threading.Thread(target=_work, args=(json.loads(line), answers))
            work.start()


def main() -> int:
    set_up_logging("csi-mounter", "INFO")
    serve(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
