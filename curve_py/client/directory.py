"""The directory of a cluster on this machine: what `curve up` made and where it is.

Owns: the layout of the directory and its description, cluster.json (docs/cli.md). Invariant: the
description is replaced atomically and never loses an identity or a port. Must not start or stop
anything. May block (disk).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curve_py.errors import ConfigError, NotFoundError
from curve_py.files import write_durably

DESCRIPTION_VERSION = 1
ENV_DIRECTORY = "CURVE_DIR"


@dataclass(slots=True)
class LocalMetaserver:
    name: str
    node_id: str
    grpc_address: str
    peer_address: str
    http_address: str


@dataclass(slots=True)
class LocalChunkserver:
    name: str
    data_address: str
    admin_address: str
    http_address: str
    store_bytes: int
    # R1: once its store was seen in the cluster it is never made again by itself.
    formatted: bool = False


@dataclass(slots=True)
class Description:
    cluster_id: str
    name: str
    # R1: once the cluster was seen formed, no metaserver is ever bootstrapped again.
    formed: bool = False
    metaservers: list[LocalMetaserver] = field(default_factory=list)
    chunkservers: list[LocalChunkserver] = field(default_factory=list)
    # Names of chunkservers that were removed: their directories may be there, so they are not used
    # again.
    removed: list[str] = field(default_factory=list)
    version: int = DESCRIPTION_VERSION

    def addresses(self) -> set[str]:
        """HOST:PORT of everything that listens, or will."""
        found: set[str] = set()
        for meta in self.metaservers:
            found |= {meta.grpc_address, meta.peer_address, meta.http_address}
        for chunk in self.chunkservers:
            found |= {chunk.data_address, chunk.admin_address, chunk.http_address}
        return found


def default_directory() -> Path:
    """$CURVE_DIR, else ~/.local/state/curve/cluster (XDG_STATE_HOME is honoured)."""
    given = os.environ.get(ENV_DIRECTORY)
    if given:
        return Path(given)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "curve" / "cluster"


class ClusterDirectory:
    """Paths below one directory, and its description."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path).absolute() if path else default_directory().absolute()

    @property
    def secret_file(self) -> Path:
        return self.path / "secret"

    @property
    def description_file(self) -> Path:
        return self.path / "cluster.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def config_file(self, service: str) -> Path:
        return self.path / "etc" / f"{service}.toml"

    def log_file(self, service: str) -> Path:
        return self.path / "log" / f"{service}.log"

    def data_dir(self, service: str) -> Path:
        return self.path / "data" / service

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    @property
    def exists(self) -> bool:
        return self.description_file.exists()

    def make(self) -> None:
        """The directories, for the owner only."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("etc", "log", "data", "run"):
            (self.path / name).mkdir(exist_ok=True, mode=0o700)

    def load(self) -> Description:
        """Raises NotFoundError when there is no cluster, ConfigError when it cannot be read."""
        try:
            content: dict[str, Any] = json.loads(self.description_file.read_text())
            if content["version"] != DESCRIPTION_VERSION:
                raise ConfigError(
                    f"{self.description_file} has version {content['version']}; "
                    f"this program reads {DESCRIPTION_VERSION}."
                )
            content["metaservers"] = [LocalMetaserver(**m) for m in content["metaservers"]]
            content["chunkservers"] = [LocalChunkserver(**c) for c in content["chunkservers"]]
            return Description(**content)
        except FileNotFoundError:
            raise NotFoundError(
                f"There is no cluster in {self.path}.",
                "Start one with `curve up`, or name its directory with --dir or CURVE_DIR.",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{self.description_file} cannot be read: {error.strerror}."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.description_file} is damaged: {error}.") from None

    def save(self, description: Description) -> None:
        """Durable and atomic."""
        write_durably(self.description_file, json.dumps(asdict(description), indent=2) + "\n")
