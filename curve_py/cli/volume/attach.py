"""curve volume attach NAME."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.options import DirOption, JsonOption, ReadOnlyOption, SharedOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import device_fields
from curve_py.client.directory import ClusterDirectory
from curve_py.errors import InvalidError
from curve_py.proto import agent_pb2 as pb


class DeviceChoice(StrEnum):
    """What --device-type takes."""

    AUTO = "auto"
    FUSE = "fuse"
    NBD = "nbd"


_TYPES = {
    DeviceChoice.AUTO: pb.DEVICE_TYPE_UNSPECIFIED,
    DeviceChoice.FUSE: pb.DEVICE_TYPE_FUSE,
    DeviceChoice.NBD: pb.DEVICE_TYPE_NBD,
}


def run(
    name: str,
    device_type: Annotated[
        DeviceChoice, typer.Option(help="See: curve node doctor")
    ] = DeviceChoice.AUTO,
    read_only: ReadOnlyOption = False,
    shared: SharedOption = False,
    steal: Annotated[
        bool, typer.Option("--steal", help="Take it from whoever has it attached, who is fenced.")
    ] = False,
    dir: DirOption = None,  # noqa: A002
    json: JsonOption = False,
) -> None:
    """Make a volume a block device of this machine, and print the device.

    The node agent serves it, and is started if it does not run; it needs root.
    """
    if read_only and shared:
        raise InvalidError("--read-only and --shared exclude each other.", "Give one of them.")
    directory = ClusterDirectory(dir)
    directory.load()
    with LocalAgent(directory).ensure() as agent:
        device = agent.attach(
            volume_name=name,
            device_type=_TYPES[device_type],
            read_only=read_only,
            shared=shared,
            steal=steal,
        )
    Output(json).result({"device": device_fields(device)}, device.device)
