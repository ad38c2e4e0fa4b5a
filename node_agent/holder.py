"""`curve-agent --config F`: keeps the devices' descriptors, and their worker running.

Owns: the worker process, and a duplicate of each descriptor without which a device would die with
the worker. A worker that ends unasked is started again at once and takes up the devices; SIGHUP
replaces it, which is how a new version is put in place. SIGTERM and SIGINT end it, and then this
process. Nothing but the standard library is loaded here, so that there is little to go wrong and
nothing to upgrade. Thread: one; it waits in poll.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from node_agent import handover

WORKER_MODULE = "node_agent.worker"
_PAUSE_SECONDS = 0.2
_PAUSE_SECONDS_MAX = 5.0


class Supervisor:
    """One per process."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._held: dict[str, int] = {}
        self._stopping = False
        self._served = self._ever_served = False  # the last worker; some worker
        self._failures = 0
        self._signals_in, self._signals_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Until stopped; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._signals_out)
        while True:
            self._served = False
            code = self._run_worker()
            if self._stopping:
                return max(code, 0)
            if not self._ever_served and not self._held:
                return code if code > 0 else 1  # it has said why
            # At once, since I/O waits, unless the last one did not even get as far as that.
            self._failures = 0 if self._served else self._failures + 1
            if self._failures:
                self._wait(min(_PAUSE_SECONDS * self._failures, _PAUSE_SECONDS_MAX))
            if self._stopping:
                return 0

    def _run_worker(self) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            worker = subprocess.Popen(
                [sys.executable, "-m", WORKER_MODULE, *self._arguments],
                env={**os.environ, handover.ENV_DESCRIPTOR: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            ended = os.pidfd_open(worker.pid)
            poll = select.poll()
            for descriptor in (ours.fileno(), ended, self._signals_in):
                poll.register(descriptor, select.POLLIN)
            try:
                while True:
                    ready = {descriptor for descriptor, _ in poll.poll()}
                    if self._signals_in in ready:
                        self._take_signals(worker)
                    # What a worker has said counts, also when it has ended.
                    if ours.fileno() in ready and not self._listen(ours):
                        poll.unregister(ours.fileno())
                    elif ended in ready and ours.fileno() not in ready:
                        return worker.wait()
            finally:
                os.close(ended)

    def _take_signals(self, worker: subprocess.Popen[bytes]) -> None:
        for number in os.read(self._signals_in, 64):
            if number == signal.SIGHUP:
                worker.kill()  # the way of replacement is always the same
            elif number in (signal.SIGTERM, signal.SIGINT):
                if self._stopping:
                    worker.kill()
                self._stopping = True
                worker.terminate()

    def _listen(self, ours: socket.socket) -> bool:
        """One message; False at the end."""
        try:
            received = handover.receive(ours)
        except OSError:
            return False
        if received is None:
            return False
        message, descriptor = received
        match message["is"]:
            case "put":
                self._drop(message["key"])
                self._held[message["key"]] = descriptor
            case "drop":
                self._drop(message["key"])
            case "serving":
                self._served = self._ever_served = True
            case "get":
                with contextlib.suppress(OSError):
                    for key, held in self._held.items():
                        handover.send(ours, {"is": "held", "key": key}, held)
                    handover.send(ours, {"is": "end"})
        return True

    def _drop(self, key: str) -> None:
        descriptor = self._held.pop(key, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def _wait(self, seconds: float) -> None:
        """Signals end it."""
        if select.select([self._signals_in], [], [], seconds)[0]:
            numbers = os.read(self._signals_in, 64)
            self._stopping = signal.SIGTERM in numbers or signal.SIGINT in numbers


def main() -> int:
    """The console script; returns the exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        os.execv(sys.executable, [sys.executable, "-m", WORKER_MODULE, *sys.argv[1:]])
    return Supervisor(sys.argv[1:]).run()


if __name__ == "__main__":
    sys.exit(main())
