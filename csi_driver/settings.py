"""The driver's settings.

Every key is a TOML key, CURVE_<KEY> and --<key>; docs/csi.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from curve_py.config import Address, ServiceSettings

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class CsiSettings(ServiceSettings):
    """Of one process."""

    endpoint: str = Field(description="unix:///PATH of the socket for Kubernetes' sidecars")
    mode: Literal["controller", "node", "all"] = Field(
        "all", description="which services: controller, node or all"
    )
    metaservers: list[Address] = Field(description="gRPC addresses of all metaservers")
    node_id: str = Field("", description="name of this node; must be the node agent's")
    zone: str = Field("default", description="zone of this node")
    agent_socket: Path = Field(
        Path("/var/lib/curve-agent/agent.sock"), description="socket of the node agent"
    )
    driver_name: str = Field("csi.curve.storage", description="name that StorageClasses say")
    volumes_max: int = Field(
        128, ge=0, le=4096, description="volumes on this node at once; 0: no limit is told"
    )
    call_seconds: float = Field(
        110.0, gt=0, description="after so long a call is answered; its work goes on"
    )
    watch_seconds: float = Field(
        10.0, gt=0, description="how often file systems are looked at for growing and trimming"
    )

    @property
    def socket(self) -> Path:
        return Path(self.endpoint.removeprefix("unix:").replace("//", "/", 1))

    @property
    def topology_key(self) -> str:
        return f"topology.{self.driver_name}/zone"

    @model_validator(mode="after")
    def _check(self) -> CsiSettings:
        if not self.endpoint.startswith("unix:") or not self.socket.is_absolute():
            raise ValueError("The endpoint is unix:///PATH.")
        if not self.metaservers:
            raise ValueError("The list of metaservers is empty.")
        if not _NAME.fullmatch(self.driver_name):
            raise ValueError("The driver_name is a domain name.")
        if self.mode != "controller" and not 1 <= len(self.node_id) <= 192:
            raise ValueError("A node needs a node_id of 1 to 192 characters.")
        return self
