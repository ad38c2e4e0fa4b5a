"""How large a volume becomes for a CapacityRange. Pure functions, any thread.

Invariant: at least `required_bytes`, at most `limit_bytes`, a multiple of 1 MiB, and enough for the
file system that is asked for.
"""

from __future__ import annotations

from csi_driver.failures import invalid, out_of_range
from csi_driver.proto import csi_pb2 as csi
from curve_py.types import VOLUME_BYTES_MAX

MIB = 1 << 20
DEFAULT_BYTES = 10 << 30
BYTES_MAX = VOLUME_BYTES_MAX // MIB * MIB
# mkfs.xfs refuses less than 300 MB; a smaller ext4 has no journal.
_LEAST_BYTES = {"": MIB, "ext4": 16 * MIB, "xfs": 320 * MIB}


def check_range(wanted: csi.CapacityRange) -> None:
    """Raises CsiError."""
    if wanted.required_bytes < 0 or wanted.limit_bytes < 0:
        raise invalid("A capacity cannot be negative.")
    if wanted.limit_bytes and wanted.required_bytes > wanted.limit_bytes:
        raise invalid(
            f"At least {wanted.required_bytes} and at most {wanted.limit_bytes} bytes is no size."
        )


def size_for(wanted: csi.CapacityRange, file_system: str) -> int:
    """Of a new volume. Raises CsiError (OUT_OF_RANGE) when no size fits."""
    check_range(wanted)
    least = max(wanted.required_bytes, _LEAST_BYTES[file_system])
    if not wanted.required_bytes:
        least = max(least, min(DEFAULT_BYTES, wanted.limit_bytes or DEFAULT_BYTES) // MIB * MIB)
    return _fitting(least, wanted)


def grown_size(wanted: csi.CapacityRange, size_bytes: int) -> int:
    """Of a volume that has `size_bytes` now. Raises CsiError."""
    check_range(wanted)
    if not wanted.required_bytes and not wanted.limit_bytes:
        raise invalid("The request does not say how large the volume is to be.")
    if wanted.limit_bytes and size_bytes > wanted.limit_bytes:
        raise out_of_range(
            f"The volume has {size_bytes} bytes already, more than {wanted.limit_bytes}."
        )
    return max(size_bytes, _fitting(max(wanted.required_bytes, MIB), wanted))


def _fitting(least: int, wanted: csi.CapacityRange) -> int:
    size = (least + MIB - 1) // MIB * MIB
    if size > BYTES_MAX:
        raise out_of_range(f"A volume has at most {BYTES_MAX} bytes, not {size}.")
    if wanted.limit_bytes and size > wanted.limit_bytes:
        raise out_of_range(
            f"No size of whole MiB with at least {least} bytes is within the limit of "
            f"{wanted.limit_bytes}."
        )
    return size


def in_range(size_bytes: int, wanted: csi.CapacityRange) -> bool:
    """Whether a volume that exists serves a request."""
    return size_bytes >= wanted.required_bytes and (
        not wanted.limit_bytes or size_bytes <= wanted.limit_bytes
    )
