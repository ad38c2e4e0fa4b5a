"""The node agent of a cluster directory: started when it is first needed, found again, stopped.

Owns: etc/agent.toml and the directory agent/ of the cluster's directory. Another agent (of a unit
file, of Kubernetes) is named by its socket, and is left alone. An agent whose holder was killed
("unattended") serves on, but has no successor when it ends: it is used while it has devices, and
another takes its place when it has none. May block.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from curve_py.cli.local.processes import Processes, console_script
from curve_py.client.agent import AgentClient
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import CurveError, CurveTimeoutError, UnavailableError

ENV_SOCKET = "CURVE_AGENT"
NAME = "agent"
START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_ANSWER_SECONDS = 2.0
_WORKER_MODULE = b"node_agent.worker"


class LocalAgent:
    """The agent that the command talks to."""

    def __init__(self, directory: ClusterDirectory) -> None:
        self._directory = directory
        self._processes = Processes(directory)
        given = os.environ.get(ENV_SOCKET)
        self._foreign = bool(given)
        self.socket = Path(given) if given else directory.path / "agent" / "agent.sock"

    @property
    def is_running(self) -> bool:
        return self._foreign or self.pid is not None

    @property
    def pid(self) -> int | None:
        """Of the holder, or of a worker that has lost it; None: unknown, or none runs."""
        if self._foreign:
            return None
        if (pid := self._processes.pid(NAME)) is None and (pid := self._worker_pid()) is not None:
            self._processes.record(NAME, pid)
        return pid

    @property
    def state(self) -> str:
        """up, unattended, down; "" when no agent belongs to the directory."""
        if self._foreign:
            try:
                with AgentClient(self.socket) as agent:
                    agent.list(seconds=_ANSWER_SECONDS)
            except CurveError:
                return "down"
            return "up"
        if self.pid is not None:
            return "unattended" if self.pid == self._worker_pid() else "up"
        return "down" if self._directory.config_file(NAME).exists() else ""

    def client(self) -> AgentClient:
        """Of the agent that runs. Raises UnavailableError when none does."""
        if not self.is_running:
            raise UnavailableError(
                f"No node agent runs for {self._directory.path}.",
                "It is started by: curve volume attach NAME",
            )
        return AgentClient(self.socket)

    def ensure(self) -> AgentClient:
        """Of the agent that runs, started if there is none. Raises CurveError."""
        self._end_unattended()
        if not self.is_running:
            self._start()
        return self.client()

    def start_again(self) -> bool:
        """After a crash or a reboot, if there was one. Returns whether it was started."""
        self._end_unattended()
        if self.is_running or not self._directory.config_file(NAME).exists():
            return False
        self._start()
        return True

    def stop(self) -> list[str]:
        """Takes its devices away and ends it. Returns who ran. Raises ConflictError, and leaves it
        running, while a device is open.
        """
        if self._foreign or not self.is_running:
            return []
        # One that does not answer is ended all the same.
        with contextlib.suppress(UnavailableError, CurveTimeoutError), self.client() as agent:
            for device in agent.list().devices:
                agent.detach(volume_id=device.volume_id)
        return self._processes.stop([NAME])

    def _worker_pid(self) -> int | None:
        """Of the worker, which writes it into the file that it locks."""
        try:
            pid = int((self.socket.parent / "lock").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if _WORKER_MODULE in command.split(b"\0") else None

    def _end_unattended(self) -> None:
        if self._foreign or self.state != "unattended":
            return
        with self.client() as agent:
            if not agent.list().devices:
                self._processes.stop([NAME])

    def _start(self) -> None:
        description = self._directory.load()
        config = self._directory.config_file(NAME)
        if not config.exists():
            addresses = [metaserver.grpc_address for metaserver in description.metaservers]
            config.write_text(
                f"secret_file = {json.dumps(str(self._directory.secret_file))}\n"
                f"directory = {json.dumps(str(self.socket.parent))}\n"
                f"metaservers = {json.dumps(addresses)}\n"
            )
        self.socket.unlink(missing_ok=True)
        self._processes.start(NAME, [console_script("curve-agent"), "--config", str(config)])
        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            words = self._processes.ended_with(NAME)
            if words is not None:
                raise UnavailableError(
                    f"The node agent did not start: {words}",
                    f"See {self._directory.log_file(NAME)}, and `curve node doctor`.",
                )
            if time.monotonic() > deadline:
                raise CurveTimeoutError(
                    f"The node agent did not start within {START_SECONDS:g} s.",
                    f"See {self._directory.log_file(NAME)}.",
                )
            time.sleep(_POLL_SECONDS)
