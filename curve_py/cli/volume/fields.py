"""The documented fields of volumes in JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from curve_py.client import AttachmentInfo, VolumeInfo
from curve_py.proto import agent_pb2 as pb


def volume_fields(volume: VolumeInfo) -> dict[str, Any]:
    """As in docs/cli.md."""
    return asdict(volume)


def attachment_fields(attachment: AttachmentInfo) -> dict[str, Any]:
    """As in docs/cli.md."""
    return asdict(attachment)


def device_fields(device: pb.Device) -> dict[str, Any]:
    """As in docs/cli.md."""
    return {
        "volume_id": device.volume_id,
        "volume": device.volume_name,
        "uuid": device.volume_uuid,
        "device_type": pb.DeviceType.Name(device.device_type).removeprefix("DEVICE_TYPE_").lower(),
        "device": device.device,
        "link": device.link,
        "size_bytes": device.size_bytes,
        "read_only": device.read_only,
        "shared": device.shared,
        "state": pb.DeviceState.Name(device.state).removeprefix("DEVICE_STATE_").lower(),
        "lost_reason": device.lost_reason,
        "attachment_id": device.attachment_id,
        "epoch": device.epoch,
        "attached_at_ms": device.attached_at_ms,
    }
