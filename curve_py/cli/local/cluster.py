"""A cluster of separate processes on this machine: described, started, waited for, stopped.

Owns: the configuration files below etc/, and the order of starting. Services are started by their
console scripts, as a unit file would do it. Idempotent: what runs is left alone, what is missing is
started with the data that is there. Must not print: progress goes to a callback. May block.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator

from curve_py.cli.local.ports import free_addresses
from curve_py.cli.local.processes import Processes, console_script
from curve_py.client.directory import (
    ClusterDirectory,
    Description,
    LocalChunkserver,
    LocalMetaserver,
)
from curve_py.errors import (
    BusyError,
    ConflictError,
    CurveError,
    CurveTimeoutError,
    InvalidError,
    NoSpaceError,
    UnavailableError,
)
from curve_py.proto import meta_pb2 as pb
from curve_py.service.meta_client import MetaClient
from curve_py.service.secret import create_secret, load_secret
from curve_py.sizes import format_size
from curve_py.types import new_uuid, uuid_text

DEFAULT_POOL = "default"
COPYSETS = 64
REPLICAS = 3
METASERVER_WAL_BYTES = 64 * 1024**2
GONE_AFTER_SECONDS = 10  # one machine: what does not come back soon does not come back by itself
STORE_BYTES_MIN = 64 * 1024**2
STEP_SECONDS = 120.0
_POLL_SECONDS = 0.1
_CALL_SECONDS = 5.0

Progress = Callable[[str, int, int], None]  # what is waited for, how many are done, of how many


class LocalCluster:
    """One cluster directory and its processes."""

    def __init__(
        self,
        directory: ClusterDirectory,
        copysets: int = COPYSETS,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        self.directory = directory
        self._step_seconds = step_seconds  # that each step of a start may take
        self._copysets = copysets  # of the pool, should it have to be made
        self.processes = Processes(directory)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One `curve up` or `curve down` at a time. Raises BusyError."""
        descriptor = os.open(self.directory.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BusyError(
                f"Another `curve up` or `curve down` works on {self.directory.path}.",
                "Wait for it to end.",
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    # --- Describing -----------------------------------------------------------------------------

    def describe(
        self, metaservers: int | None, chunkservers: int | None, store_bytes: int
    ) -> Description:
        """The description, made or extended by chunkservers that are new. Raises CurveError."""
        if store_bytes < STORE_BYTES_MIN:
            raise InvalidError("A store has at least 64 MiB.")
        self.directory.make()
        with contextlib.suppress(FileExistsError):
            create_secret(self.directory.secret_file)
        if self.directory.exists:
            description = self.directory.load()
            if metaservers not in (None, len(description.metaservers)):
                raise ConflictError(
                    f"This cluster has {len(description.metaservers)} metaservers, which cannot "
                    "be changed.",
                    "Leave --metaservers away, or use another directory.",
                )
        else:
            description = Description(uuid_text(new_uuid()), "curve")
            count = 3 if metaservers is None else metaservers
            if count not in (1, 3, 5):
                raise InvalidError("There are 1, 3 or 5 metaservers.")
            self._add_metaservers(description, count)
        known = len(description.chunkservers)
        wanted = (known or 3) if chunkservers is None else chunkservers
        if wanted < max(known, 1):
            raise InvalidError(
                f"The cluster has {known} chunkservers; `curve up` takes none away."
                if known
                else "A cluster has at least one chunkserver."
            )
        self._add_chunkservers(description, wanted - known, store_bytes)
        self.directory.save(description)
        self._write_configs(description)
        return description

    def _add_metaservers(self, description: Description, count: int) -> None:
        free = iter(free_addresses(3 * count))
        for number in range(1, count + 1):
            description.metaservers.append(
                LocalMetaserver(
                    f"metaserver-{number}",
                    uuid_text(new_uuid()),
                    next(free),
                    next(free),
                    next(free),
                )
            )

    def _add_chunkservers(self, description: Description, count: int, store_bytes: int) -> None:
        self._check_space(count, store_bytes)
        free = iter(free_addresses(3 * count, description.addresses()))
        for _ in range(count):
            ever = len(description.chunkservers) + len(description.removed)
            name = f"chunkserver-{ever + 1}"
            description.chunkservers.append(
                LocalChunkserver(name, next(free), next(free), next(free), store_bytes)
            )

    def _check_space(self, count: int, store_bytes: int) -> None:
        """Stores are preallocated; their logs take a tenth on top. Raises NoSpaceError."""
        wanted = count * (store_bytes + max(store_bytes // 10, 256 * 1024**2))
        have = shutil.disk_usage(self.directory.path).free
        if wanted > have:
            raise NoSpaceError(
                f"{count} stores of {format_size(store_bytes)} with their logs need "
                f"{format_size(wanted)}; {self.directory.path} has {format_size(have)} free.",
                "Give a smaller --store-size or another --dir.",
            )

    def _write_configs(self, description: Description) -> None:
        """Files that are there stay as they are: they may have been edited."""
        secret = _quoted(str(self.directory.secret_file))
        for metaserver in description.metaservers:
            members = "".join(
                f"\n[[members]]\nnode_id = {_quoted(m.node_id)}\n"
                f"grpc_address = {_quoted(m.grpc_address)}\n"
                f"peer_address = {_quoted(m.peer_address)}\n"
                for m in description.metaservers
            )
            self._write_config(
                metaserver.name,
                f"secret_file = {secret}\n"
                f"data_dir = {_quoted(str(self.directory.data_dir(metaserver.name)))}\n"
                f"node_id = {_quoted(metaserver.node_id)}\n"
                f"cluster_id = {_quoted(description.cluster_id)}\n"
                f"cluster_name = {_quoted(description.name)}\n"
                f"grpc_listen = {_quoted(metaserver.grpc_address)}\n"
                f"peer_listen = {_quoted(metaserver.peer_address)}\n"
                f"http_listen = {_quoted(metaserver.http_address)}\n"
                f"gone_after_seconds = {GONE_AFTER_SECONDS}\n"
                f"wal_bytes = {METASERVER_WAL_BYTES}\n{members}",
            )
        addresses = ", ".join(_quoted(m.grpc_address) for m in description.metaservers)
        for chunkserver in description.chunkservers:
            self._write_config(
                chunkserver.name,
                f"secret_file = {secret}\n"
                f"store_path = {_quoted(str(self.directory.data_dir(chunkserver.name)))}\n"
                f"cluster_id = {_quoted(description.cluster_id)}\n"
                f"data_listen = {_quoted(chunkserver.data_address)}\n"
                f"admin_listen = {_quoted(chunkserver.admin_address)}\n"
                f"http_listen = {_quoted(chunkserver.http_address)}\n"
                f"metaservers = [{addresses}]\n"
                f"data_bytes = {chunkserver.store_bytes}\n",
            )

    def _write_config(self, name: str, content: str) -> None:
        path = self.directory.config_file(name)
        if not path.exists():
            temporary = path.with_suffix(".new")
            temporary.write_text(content)
            os.replace(temporary, path)

    # --- Starting -------------------------------------------------------------------------------

    def start_missing(self, description: Description) -> list[str]:
        """Starts every service that does not run; returns their names. Raises CurveError."""
        started = []
        for metaserver in description.metaservers:
            name = metaserver.name
            if self.processes.pid(name) is not None:
                continue
            command = [console_script("curve-metaserver"), "--config"]
            command.append(str(self.directory.config_file(name)))
            # R1: only before the cluster was formed, and only where no log is.
            if not description.formed and not (self.directory.data_dir(name) / "wal").exists():
                command.append("--bootstrap")
            self.processes.start(name, command)
            started.append(name)
        for chunkserver in description.chunkservers:
            name = chunkserver.name
            if self.processes.pid(name) is not None:
                continue
            command = [console_script("curve-chunkserver"), "--config"]
            command.append(str(self.directory.config_file(name)))
            # R1: a store that was ever complete is not made again by itself; one whose formatting
            # was cut off is, with a new id.
            if not chunkserver.formatted and not self._has_store(name):
                command.append("--format")
            self.processes.start(name, command)
            started.append(name)
        return started

    def _has_store(self, name: str) -> bool:
        native = importlib.import_module("curve_py._native.store")
        return bool(native.StoreServer.exists(str(self.directory.data_dir(name) / "data")))

    def wait_ready(self, description: Description, progress: Progress) -> None:
        """Until the default pool is formed and every copyset has a leader. Raises CurveError."""
        with self.client(description) as client:
            info = self._wait_formed(client, progress)
            if info.cluster_id.hex() != description.cluster_id.replace("-", ""):
                raise ConflictError("The metaservers belong to another cluster than cluster.json.")
            if not description.formed:
                self._wait_all_metaservers(client, description, progress)
                description.formed = True
                self.directory.save(description)
            self._wait_chunkservers(client, description, progress)
            self._ensure_pool(client, description)
            self._wait_copysets(client, progress)

    def client(self, description: Description) -> MetaClient:
        addresses = [metaserver.grpc_address for metaserver in description.metaservers]
        return MetaClient(addresses, load_secret(self.directory.secret_file))

    def _wait_formed(self, client: MetaClient, progress: Progress) -> pb.ClusterInfo:
        progress("metaservers elect a leader", 0, 1)
        for _ in self._until("The metaservers have not elected a leader"):
            try:
                info: pb.ClusterInfo = client.call(
                    "GetClusterInfo", pb.GetClusterInfoRequest(), _CALL_SECONDS
                )
            except UnavailableError:
                continue
            if info.cluster_id:
                progress("metaservers elect a leader", 1, 1)
                return info
        raise AssertionError

    def _wait_all_metaservers(
        self, client: MetaClient, description: Description, progress: Progress
    ) -> None:
        total = len(description.metaservers)
        for _ in self._until("Not every metaserver has joined the cluster"):
            joined = 0
            for metaserver in description.metaservers:
                with contextlib.suppress(CurveError):
                    status = client.ask(
                        metaserver.grpc_address, "GetNodeStatus", pb.GetNodeStatusRequest()
                    )
                    joined += bool(status.cluster_id)
            progress("metaservers join", joined, total)
            if joined == total:
                return

    def _wait_chunkservers(
        self, client: MetaClient, description: Description, progress: Progress
    ) -> None:
        # One that has just been killed counts as up for a while: the process that runs is meant.
        wanted = {
            chunkserver.data_address: self.processes.pid(chunkserver.name)
            for chunkserver in description.chunkservers
        }
        for _ in self._until("Not every chunkserver has registered"):
            with contextlib.suppress(UnavailableError):
                answer = client.call(
                    "ListChunkservers", pb.ListChunkserversRequest(), _CALL_SECONDS
                )
                up = {
                    c.data_address
                    for c in answer.chunkservers
                    if c.state == pb.CHUNKSERVER_STATE_UP and c.pid == wanted.get(c.data_address)
                }
                progress("chunkservers register", len(up), len(wanted))
                if len(up) == len(wanted):
                    break
        for chunkserver in description.chunkservers:
            chunkserver.formatted = True
        self.directory.save(description)

    def _ensure_pool(self, client: MetaClient, description: Description) -> None:
        pools = client.call("ListPools", pb.ListPoolsRequest()).pools
        if any(pool.name == DEFAULT_POOL for pool in pools):
            return
        replicas = min(REPLICAS, len(description.chunkservers))
        client.call(
            "CreatePool",
            pb.CreatePoolRequest(
                name=DEFAULT_POOL, copyset_count=self._copysets, replica_count=replicas
            ),
        )

    def _wait_copysets(self, client: MetaClient, progress: Progress) -> None:
        for _ in self._until("Not every copyset has a leader"):
            with contextlib.suppress(UnavailableError):
                status: pb.ClusterStatus = client.call(
                    "GetClusterStatus", pb.GetClusterStatusRequest(), _CALL_SECONDS
                )
                progress(
                    "copysets elect leaders", status.copysets_with_leader, status.copysets_total
                )
                forming = [p for p in status.pools if p.state != pb.POOL_STATE_READY]
                if not forming and 0 < status.copysets_total == status.copysets_with_leader:
                    return

    def _until(self, what: str) -> Iterator[None]:
        """Turns of a wait; ends it with an error when a service has ended or time is over."""
        deadline = time.monotonic() + self._step_seconds
        while True:
            yield
            self.check_running()
            if time.monotonic() > deadline:
                raise CurveTimeoutError(
                    f"{what} within {self._step_seconds:g} s.",
                    f"See the logs in {self.directory.path / 'log'}.",
                )
            time.sleep(_POLL_SECONDS)

    def check_running(self) -> None:
        """Raises UnavailableError when a service has ended, with what it said last."""
        description = self.directory.load()
        for name in service_names(description):
            words = self.processes.ended_with(name)
            if words is not None:
                raise UnavailableError(
                    f"{name} has ended: {words}", f"See {self.directory.log_file(name)}."
                )

    def forget(self, data_address: str) -> str:
        """A chunkserver was removed from the cluster: stops its process and does not start it
        again. Returns its name, "" when it is none of this directory.
        """
        with self.locked():
            description = self.directory.load()
            for chunkserver in description.chunkservers:
                if chunkserver.data_address == data_address:
                    description.chunkservers.remove(chunkserver)
                    description.removed.append(chunkserver.name)
                    self.directory.save(description)
                    self.processes.stop([chunkserver.name])
                    return chunkserver.name
        return ""

    # --- Stopping -------------------------------------------------------------------------------

    def stop(self, description: Description) -> list[str]:
        """Chunkservers first, then metaservers. Returns who ran."""
        stopped = self.processes.stop([c.name for c in description.chunkservers])
        return stopped + self.processes.stop([m.name for m in description.metaservers])


def service_names(description: Description) -> list[str]:
    metaservers = [server.name for server in description.metaservers]
    return metaservers + [server.name for server in description.chunkservers]


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(text)
