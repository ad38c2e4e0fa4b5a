"""What a StorageClass may say, and what the node needs of it.

Owns: the keys, their meaning and their normal form (docs/csi.md). Keys of Kubernetes itself
(csi.storage.k8s.io/...) are kept as labels and mean nothing here. Pure functions, any thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from csi_driver.failures import invalid
from curve_py.errors import CurveError
from curve_py.sizes import parse_size

KUBERNETES_PREFIX = "csi.storage.k8s.io/"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class AutoGrow:
    """Opt-in growth of a mounted file system."""

    threshold_percent: int
    step: str  # a size, or a share of the volume as in "20%"
    limit_bytes: int

    def next_size(self, size_bytes: int) -> int:
        """The size after one more step, in MiB; as it is when the limit is reached."""
        if self.step.endswith("%"):
            step = size_bytes * int(self.step[:-1]) // 100
        else:
            step = parse_size(self.step)
        mib = 1 << 20
        grown = (size_bytes + max(step, mib) + mib - 1) // mib * mib
        return max(size_bytes, min(grown, self.limit_bytes // mib * mib))


@dataclass(frozen=True, slots=True)
class Parameters:
    """Of CreateVolume, checked."""

    pool: str = ""
    stripe_unit_bytes: int = 0
    stripe_count: int = 0
    pool_zones_only: bool = False
    auto_grow: AutoGrow | None = None
    trim_interval_seconds: int = 0

    def context(self) -> dict[str, str]:
        """What nodes are told (volume_context); the same for ever."""
        context = {}
        if self.auto_grow is not None:
            context["autoGrowThreshold"] = str(self.auto_grow.threshold_percent)
            context["autoGrowStep"] = self.auto_grow.step
            context["autoGrowLimit"] = str(self.auto_grow.limit_bytes)
        if self.trim_interval_seconds:
            context["trimInterval"] = f"{self.trim_interval_seconds}s"
        return context

    def normal(self) -> dict[str, str]:
        """The same for requests that mean the same."""
        return {
            "pool": self.pool,
            "stripeUnit": str(self.stripe_unit_bytes),
            "stripeCount": str(self.stripe_count),
            "accessibleFrom": "pool-zones" if self.pool_zones_only else "anywhere",
            **self.context(),
        }


_KEYS = frozenset(
    (
        "pool",
        "stripeUnit",
        "stripeCount",
        "accessibleFrom",
        "autoGrowThreshold",
        "autoGrowStep",
        "autoGrowLimit",
        "trimInterval",
    )
)


def parse_parameters(given: Mapping[str, str]) -> Parameters:
    """Raises CsiError (INVALID_ARGUMENT)."""
    ours = {key: text for key, text in given.items() if not key.startswith(KUBERNETES_PREFIX)}
    for key in sorted(ours.keys() - _KEYS):
        raise invalid(f"The parameter '{key}' is not known; there are {', '.join(sorted(_KEYS))}.")
    accessible = ours.get("accessibleFrom", "anywhere")
    if accessible not in ("anywhere", "pool-zones"):
        raise invalid("accessibleFrom is 'anywhere' or 'pool-zones'.")
    return Parameters(
        pool=ours.get("pool", ""),
        stripe_unit_bytes=_size("stripeUnit", ours["stripeUnit"]) if "stripeUnit" in ours else 0,
        stripe_count=_number("stripeCount", ours.get("stripeCount", "0"), 0, 1024),
        pool_zones_only=accessible == "pool-zones",
        auto_grow=parse_auto_grow(ours),
        trim_interval_seconds=parse_interval("trimInterval", ours.get("trimInterval", "0s")),
    )


def parse_auto_grow(given: Mapping[str, str]) -> AutoGrow | None:
    """Of parameters or of a volume_context. Raises CsiError."""
    if not any(key in given for key in ("autoGrowThreshold", "autoGrowStep", "autoGrowLimit")):
        return None
    if "autoGrowLimit" not in given:
        raise invalid("A volume that grows by itself needs an autoGrowLimit.")
    step = given.get("autoGrowStep", "20%")
    if step.endswith("%"):
        _number("autoGrowStep", step[:-1], 1, 100)
    elif not _size("autoGrowStep", step):
        raise invalid("autoGrowStep is more than nothing.")
    threshold = _number("autoGrowThreshold", given.get("autoGrowThreshold", "80"), 1, 99)
    return AutoGrow(threshold, step, _size("autoGrowLimit", given["autoGrowLimit"]))


def parse_interval(key: str, text: str) -> int:
    """Seconds of "90s", "15m", "24h" or "7d"; 0 is never. Raises CsiError."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise invalid(f"{key} is a time like 12h, not '{text}'.")
    return int(found[1]) * _UNITS[found[2]]


def _number(key: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
        raise invalid(f"{key} is a number from {least} to {most}, not '{text}'.")
    return int(text)


def _size(key: str, text: str) -> int:
    try:
        return parse_size(text)
    except CurveError as error:
        raise invalid(f"{key}: {error.message}") from None
