"""Which epochs of a volume are valid, as attachments come and go (R12). Pure functions, any thread.

Invariant: a fence only rises: an epoch that was refused once, or that was put out, is never
admitted again.
"""

from __future__ import annotations

from collections.abc import Iterable

from metaserver.domain.entities import Attachment, AttachMode, Fence, Volume

# Copysets keep the revoked epochs in a small fixed table.
REVOKED_MAX = 64


def conflicting(attachments: Iterable[Attachment], mode: AttachMode) -> tuple[Attachment, ...]:
    """Those that cannot stay beside a new attachment of `mode`."""
    if mode is AttachMode.EXCLUSIVE:
        return tuple(attachments)
    if mode is AttachMode.SHARED:
        return tuple(a for a in attachments if a.mode is AttachMode.EXCLUSIVE)
    return ()


def raised(fence: Fence, valid_epochs: Iterable[int], ceiling: int) -> Fence:
    """The least fence above `fence` that admits exactly `valid_epochs`, all at most `ceiling`.

    The floor never passes the ceiling: a fence that admits nothing revokes its only epoch.
    """
    valid = frozenset(valid_epochs)
    ceiling = max(ceiling, fence.ceiling)
    floor = max(min(valid, default=ceiling), fence.floor)
    revoked = tuple(epoch for epoch in range(floor, ceiling + 1) if epoch not in valid)
    return Fence(floor, ceiling, revoked)


def oldest(volume: Volume) -> Attachment:
    """The attachment that holds the floor down; the volume has one."""
    return min(volume.attachments, key=lambda attachment: attachment.epoch)
