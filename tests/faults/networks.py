"""Hosts that are network namespaces on one bridge, and cuts between them.

Owns: the namespaces and their links; `remove` (also after a failed `make`, also twice) takes all of
them away, and `make` what a run that was killed has left. The bridge is in a namespace of its own;
the namespace of the tests is one more host, `ROOT`, which is never cut off. Addresses are of the
range for benchmarks (RFC 2544). A cut is a set of addresses that a host drops on arrival: for TCP
it is loss, nobody is told. Needs root; NotAllowedError says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence

ROOT = "tests"
_PREFIX = "curve-faults-"
_RULES = """
table inet faults {
  set cut { type ipv4_addr; }
  chain input { type filter hook input priority 0; policy accept; ip saddr @cut drop; }
}
"""


class NotAllowedError(Exception):
    """No network namespaces or no nftables here, and why."""


def _run(*command: str, given: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=30, check=False
        )
    except FileNotFoundError:
        raise NotAllowedError(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        raise NotAllowedError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def namespaces() -> list[str]:
    """Those of tests like this one."""
    if shutil.which("ip") is None:
        return []
    names = [line.split()[0] for line in _run("ip", "netns", "list").splitlines() if line]
    return [name for name in names if name.startswith(_PREFIX)]


def links() -> list[str]:
    """In the namespace of the tests."""
    listed = _run("ip", "-o", "link", "show").splitlines()
    return [line.split()[1].rstrip(":").partition("@")[0] for line in listed]


class Networks:
    """Hosts by name; each can reach each other one, until it is cut off."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = list(hosts)
        self._pid = os.getpid()
        self._link = f"cvf{self._pid % 10**8}"  # of ROOT
        self._subnet = f"198.18.{self._pid % 256}"

    def make(self) -> None:
        """Raises NotAllowedError, and has then left nothing."""
        if os.geteuid() != 0:
            raise NotAllowedError("network namespaces need root")
        for name in namespaces():
            if not os.path.exists(f"/proc/{name.removeprefix(_PREFIX).split('-')[0]}"):
                _run("ip", "netns", "delete", name)
        try:
            switch = self.namespace("switch")
            _run("ip", "netns", "add", switch)
            _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", switch, "link", "set", "bridge", "up")
            for host in self.hosts:
                self._add(host, switch)
            pair = ("type", "veth", "peer", "name", "port0", "netns", switch)
            _run("ip", "link", "add", self._link, *pair)
            _run("ip", "-n", switch, "link", "set", "port0", "master", "bridge", "up")
            _run("ip", "address", "add", f"{self.address(ROOT)}/24", "dev", self._link)
            _run("ip", "link", "set", self._link, "up")
        except NotAllowedError:
            self.remove()
            raise

    def _add(self, host: str, switch: str) -> None:
        name, port = self.namespace(host), f"port{self._number(host)}"
        _run("ip", "netns", "add", name)
        pair = ("type", "veth", "peer", "name", port, "netns", switch)
        _run("ip", "-n", name, "link", "add", "eth0", *pair)
        _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        self._nft(host, _RULES)

    def remove(self) -> None:
        """The processes in it must have ended."""
        for host in ["switch", *self.hosts]:
            with contextlib.suppress(NotAllowedError):
                _run("ip", "netns", "delete", self.namespace(host))
        with contextlib.suppress(NotAllowedError):
            _run("ip", "link", "delete", self._link)

    def namespace(self, host: str) -> str:
        return f"{_PREFIX}{self._pid}-{host}"

    def _number(self, host: str) -> int:
        return 1 if host == ROOT else self.hosts.index(host) + 2

    def address(self, host: str) -> str:
        return f"{self._subnet}.{self._number(host)}"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """The same command, on that host; its process is the command's."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(host)}", "--", *command]

    # --- Cuts -----------------------------------------------------------------------------------

    def _nft(self, host: str, rules: str) -> None:
        _run(*self.command(host, ["nft", "-f", "-"]), given=rules)

    def deafen(self, host: str, to: Iterable[str]) -> None:
        """It hears no more of what these say; they still hear it."""
        addresses = ", ".join(self.address(other) for other in to)
        self._nft(host, f"add element inet faults cut {{ {addresses} }}")

    def cut(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Both ways, between each of the one and each of the other."""
        one, other = list(some), list(others)
        for host in one:
            self.deafen(host, other)
        for host in other:
            self.deafen(host, one)

    def heal(self) -> None:
        for host in self.hosts:
            self._nft(host, "flush set inet faults cut")
