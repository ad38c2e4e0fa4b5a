"""curve volume attachments."""

from __future__ import annotations

from curve_py.cli.local.agent import LocalAgent
from curve_py.cli.options import DirOption, JsonOption
from curve_py.cli.output import Output
from curve_py.cli.volume.fields import attachment_fields, device_fields
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory
from curve_py.proto import agent_pb2 as pb


def run(dir: DirOption = None, json: JsonOption = False) -> None:  # noqa: A002
    """List who has which volume attached, and the devices of this machine."""
    with Cluster.connect(dir) as cluster:
        volumes = [v for v in cluster.volumes().list() if v.attachments]
    agent = LocalAgent(ClusterDirectory(dir))
    devices: list[pb.Device] = []
    if agent.is_running:
        with agent.client() as client:
            devices = list(client.list().devices)
    device_of = {device.attachment_id: device for device in devices}
    rows = [
        (volume.name, str(a.mode), a.node_id or a.holder, _shown(device_of.get(a.attachment_id)))
        for volume in volumes
        for a in volume.attachments
    ]
    known = {a.attachment_id for volume in volumes for a in volume.attachments}
    rows += [
        (device.volume_name, "-", "-", _shown(device))
        for device in devices
        if device.attachment_id not in known
    ]
    Output(json).table(
        {
            "attachments": [
                {"volume": volume.name, **attachment_fields(a)}
                for volume in volumes
                for a in volume.attachments
            ],
            "devices": [device_fields(device) for device in devices],
        },
        ("volume", "mode", "attached by", "device here"),
        rows,
        empty="No volume is attached.",
    )


def _shown(device: pb.Device | None) -> str:
    if device is None:
        return ""
    if device.state == pb.DEVICE_STATE_SERVING:
        return device.device
    state = "lost" if device.state == pb.DEVICE_STATE_LOST else "starting"
    return f"{device.device or 'gone'} ({state})"
