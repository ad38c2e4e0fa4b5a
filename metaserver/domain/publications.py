"""Which nodes may use a volume, and what is known of its content: the commands about both.

Part of the state machine (state.py); must not know time, randomness, the network (R16). A
publication is the permission of one node to attach; it outlives the attachments that the node makes
of it (restarts of its agent, unstage and stage again). Invariants: publications of different nodes
go together only where none of them is for a single node; taking one away puts out every attachment
of that node (R12); content never becomes NEW again. Thread: the asyncio loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Attachment,
    AttachMode,
    Node,
    Publication,
    Published,
    Reason,
    RefusedError,
    Result,
    Unpublished,
    Volume,
    VolumeContent,
)
from metaserver.domain.fencing import conflicting, raised

if TYPE_CHECKING:
    from metaserver.domain.state import MetaState

NODE_CHARACTERS_MAX = 192
PUBLICATIONS_MAX = 64
NODES_MAX = 65_536

_ALLOWED_MODES = {
    AttachMode.EXCLUSIVE: (AttachMode.EXCLUSIVE, AttachMode.READ_ONLY),
    AttachMode.SHARED: (AttachMode.SHARED, AttachMode.READ_ONLY),
    AttachMode.READ_ONLY: (AttachMode.READ_ONLY,),
}


def register_node(state: MetaState, command: cmd.RegisterNode) -> Result:
    known = state.nodes.get(command.node_id)
    if known is not None and (known.zone, known.volumes_max) == (
        command.zone,
        command.volumes_max,
    ):
        return known
    for what, text in (("id", command.node_id), ("zone", command.zone)):
        if not 1 <= len(text) <= NODE_CHARACTERS_MAX:
            raise RefusedError(
                Reason.INVALID, f"A node's {what} has 1 to {NODE_CHARACTERS_MAX} characters."
            )
    if known is None and len(state.nodes) >= NODES_MAX:
        raise RefusedError(Reason.CONFLICT, f"A cluster knows at most {NODES_MAX} nodes.")
    registered_at_ms = known.registered_at_ms if known else command.at_ms
    node = Node(command.node_id, command.zone, registered_at_ms, command.volumes_max)
    state.nodes[command.node_id] = node
    state.next_version()
    return node


def publish_volume(state: MetaState, command: cmd.PublishVolume) -> Result:
    volume = state.need_volume("", command.volume_id)
    node = state.nodes.get(command.node_id)
    if node is None:
        raise RefusedError(
            Reason.NOT_FOUND,
            f"There is no node '{command.node_id}'.",
            "A node registers when its CSI driver starts.",
        )
    single_node = command.single_node or command.mode is AttachMode.EXCLUSIVE
    known = volume.publication(command.node_id)
    if known is not None:
        if (known.mode, known.single_node) != (command.mode, single_node):
            raise RefusedError(
                Reason.EXISTS,
                f"Volume '{volume.name}' is published to node {command.node_id} already, "
                f"{known.mode}.",
                "Unpublish it first.",
            )
        return Published(volume.volume_id, known)
    for other in volume.publications:
        if single_node or other.single_node:
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' is published to node {other.node_id}, {other.mode}.",
                "Unpublish it there first.",
            )
    strangers = [a for a in volume.attachments if a.node_id != command.node_id]
    for attachment in conflicting(strangers, command.mode):
        if volume.publication(attachment.node_id) is None:
            raise RefusedError(
                Reason.CONFLICT,
                f"Volume '{volume.name}' is attached {attachment.mode} by {attachment.holder}.",
                "Detach it there first.",
            )
    if len(volume.publications) >= PUBLICATIONS_MAX:
        raise RefusedError(
            Reason.CONFLICT, f"A volume is published to at most {PUBLICATIONS_MAX} nodes."
        )
    if node.volumes_max and state.published_to(node.node_id) >= node.volumes_max:
        raise RefusedError(
            Reason.FULL,
            f"Node {node.node_id} has {node.volumes_max} volumes, as many as it may.",
            "Use another node, or unpublish one of them.",
        )
    publication = Publication(command.node_id, command.mode, single_node, command.at_ms)
    publications = tuple(sorted((*volume.publications, publication), key=lambda each: each.node_id))
    state.put_volume(replace(volume, version=state.next_version(), publications=publications))
    return Published(volume.volume_id, publication)


def unpublish_volume(state: MetaState, command: cmd.UnpublishVolume) -> Result:
    """From one node, or with an empty `node_id` from all that it is published to."""
    volume = state.volumes.get(command.volume_id)
    if volume is None:
        return Unpublished(command.volume_id, was_published=False, fence_seq=0)
    nodes = {p.node_id for p in volume.publications}
    if command.node_id:
        nodes = {command.node_id}
    kept = tuple(p for p in volume.publications if p.node_id not in nodes)
    remaining = tuple(a for a in volume.attachments if a.node_id not in nodes)
    was_published = kept != volume.publications
    if was_published or remaining != volume.attachments:
        volume = replace(volume, version=state.next_version(), publications=kept)
        state.put_volume(without_attachments(volume, remaining))
        volume = state.volumes[volume.volume_id]
    # Also when there was nothing left to do: an earlier one may have been cut off while it waited.
    return Unpublished(volume.volume_id, was_published, volume.fence_seq)


def without_attachments(volume: Volume, remaining: tuple[Attachment, ...]) -> Volume:
    """R12: with the fence that shuts out whoever is not among `remaining`."""
    if remaining == volume.attachments:
        return volume
    return replace(
        volume,
        fence=raised(volume.fence, (a.epoch for a in remaining), volume.fence.ceiling),
        fence_seq=volume.fence_seq + 1,
        attachments=remaining,
    )


def check_published(volume: Volume, command: cmd.AttachVolume) -> None:
    """Raises RefusedError where the attach is by virtue of a publication and there is none."""
    if not command.published:
        return
    publication = volume.publication(command.node_id)
    if publication is None:
        raise RefusedError(
            Reason.CONFLICT,
            f"Volume '{volume.name}' is not published to node {command.node_id}.",
            "The controller publishes it first.",
        )
    if command.mode not in _ALLOWED_MODES[publication.mode]:
        raise RefusedError(
            Reason.CONFLICT,
            f"Volume '{volume.name}' is published to node {command.node_id} "
            f"{publication.mode}, not {command.mode}.",
        )


def displaced(volume: Volume, node_id: str, mode: AttachMode) -> tuple[Publication, ...]:
    """Publications of other nodes that cannot stay beside an attachment of `mode`."""
    others: Iterable[Publication] = (p for p in volume.publications if p.node_id != node_id)
    if mode is AttachMode.EXCLUSIVE:
        return tuple(others)
    if mode is AttachMode.SHARED:
        return tuple(p for p in others if p.mode is AttachMode.EXCLUSIVE)
    return ()


def content_after_attach(volume: Volume, command: cmd.AttachVolume) -> VolumeContent:
    """Nobody knows what a writer writes, but for one that says it itself: whoever has it published
    marks the content before the volume is used.
    """
    untouched = volume.content is not VolumeContent.NEW
    if untouched or command.published or command.mode is AttachMode.READ_ONLY:
        return volume.content
    return VolumeContent.UNKNOWN


def set_content(state: MetaState, command: cmd.SetVolumeContent) -> Result:
    volume = state.need_volume("", command.volume_id)
    if volume.content is command.content:
        return volume
    if volume.content not in (VolumeContent.NEW, VolumeContent.UNKNOWN):
        raise RefusedError(
            Reason.CONFLICT,
            f"Volume '{volume.name}' holds {volume.content}, so it is not marked "
            f"{command.content}.",
            "Use a new volume.",
        )
    if command.content is VolumeContent.NEW:
        raise RefusedError(Reason.INVALID, "A volume that was used never becomes new again.")
    volume = replace(volume, content=command.content, version=state.next_version())
    state.put_volume(volume)
    return volume
