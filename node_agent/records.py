"""What the agent must know after a restart: its devices, one file each, and the links to them.

Owns: records/UUID.json and devices/UUID below the agent's directory. Invariant: a device that was
answered to somebody has its record, durably, and its link. May block (disk).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from curve_py.files import sync_folder, write_durably

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One device."""

    volume_id: int
    volume_name: str
    volume_uuid: str
    device_type: str  # fuse, nbd
    number: int  # of the device
    read_only: bool
    shared: bool
    attachment_id: int
    epoch: int
    attached_at_ms: int


class Records:
    """Those of one directory."""

    def __init__(self, directory: Path) -> None:
        self._records = directory / "records"
        self._links = directory / "devices"

    def make(self) -> None:
        for folder in (self._records, self._links):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def link(self, uuid: str) -> Path:
        return self._links / uuid

    def load(self) -> list[Record]:
        """In order of volumes. What cannot be read is said in the log and left where it is."""
        found = []
        for path in sorted(self._records.glob("*.json")):
            try:
                found.append(Record(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                _log.error("a record cannot be read", extra={"path": path, "error": str(error)})
        return sorted(found, key=lambda record: record.volume_id)

    def save(self, record: Record, device: str) -> None:
        """Durable and atomic; the link first, so that a record has one."""
        link = self.link(record.volume_uuid)
        fresh = link.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(device)
        os.replace(fresh, link)
        write_durably(self._records / f"{record.volume_uuid}.json", json.dumps(asdict(record)))

    def remove(self, uuid: str) -> None:
        self.link(uuid).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self._records / f"{uuid}.json").unlink()
            sync_folder(self._records)
