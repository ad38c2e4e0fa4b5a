"""The agent's settings.

Every key is a TOML key, CURVE_<KEY> and --<key>; docs/agent.md.
"""

from __future__ import annotations

import socket as socket_module
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from curve_py.config import Address, ServiceSettings

_SOCKET_BYTES_MAX = 107


class AgentSettings(ServiceSettings):
    """Of the one agent of a node."""

    directory: Path = Field(description="directory of the agent: records of devices, links, socket")
    socket: Path | None = Field(None, description="control socket; default: agent.sock in it")
    metaservers: list[Address] = Field(description="gRPC addresses of all metaservers")
    node_id: str = Field(
        default_factory=socket_module.gethostname,
        min_length=1,
        max_length=192,
        description="name of the node, the same for ever; default: the host's name",
    )
    device_type: Literal["auto", "fuse", "nbd"] = Field(
        "auto", description="auto, fuse or nbd, where the request does not say"
    )

    @model_validator(mode="after")
    def _check(self) -> AgentSettings:
        if not self.metaservers:
            raise ValueError("The list of metaservers is empty.")
        if len(str(self.control_socket).encode()) > _SOCKET_BYTES_MAX:
            raise ValueError(
                f"The path {self.control_socket} is longer than {_SOCKET_BYTES_MAX} bytes; set "
                "socket to a shorter one."
            )
        return self

    @property
    def control_socket(self) -> Path:
        return (self.socket or self.directory / "agent.sock").absolute()
