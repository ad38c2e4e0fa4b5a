"""Which nodes may attach a volume, and what is known of its content (R12, R16)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_domain import STORES, pool_command, register, run, snapshot

from metaserver.domain import commands as cmd
from metaserver.domain.entities import (
    Attached,
    AttachMode,
    Published,
    Reason,
    Refusal,
    VolumeContent,
)
from metaserver.domain.snapshot import restore
from metaserver.domain.state import MetaState

_numbers: Iterator[int] = count(1000)
EXCLUSIVE, SHARED, READ_ONLY = AttachMode.EXCLUSIVE, AttachMode.SHARED, AttachMode.READ_ONLY


def new_id() -> bytes:
    return next(_numbers).to_bytes(16, "big")


def made_state() -> MetaState:
    state = MetaState()
    run(state, cmd.InitCluster(b"c" * 16, "test", 1))
    for number, store in enumerate(STORES):
        run(state, register(store, 7000 + number))
    run(state, pool_command())
    for store in STORES:
        run(state, cmd.ConfirmFormed(1, store))
    for node in ("n1", "n2", "n3"):
        run(state, cmd.RegisterNode(new_id(), 3, node, "z"))
    labels = (("a", "1"), ("b", "2"))
    run(
        state,
        cmd.CreateVolume(
            new_id(), 9, "v", "default", 1 << 30, 1 << 24, 1, labels, VolumeContent.NEW
        ),
    )
    return state


@pytest.fixture
def state() -> MetaState:
    return made_state()


def publish(state: MetaState, node: str, mode: AttachMode, single: bool = False) -> Any:
    return run(state, cmd.PublishVolume(new_id(), 5, 1, node, mode, single))


def unpublish(state: MetaState, node: str = "") -> Any:
    return run(state, cmd.UnpublishVolume(new_id(), 1, node))


def attach(
    state: MetaState,
    mode: AttachMode = EXCLUSIVE,
    node: str = "",
    *,
    published: bool = False,
    refuse: bool = False,
) -> Any:
    holder = f"agent of {node}" if node else "somebody"
    return run(state, cmd.AttachVolume(new_id(), 6, "v", 0, mode, holder, refuse, node, published))


def mark(state: MetaState, content: VolumeContent) -> Any:
    return run(state, cmd.SetVolumeContent(new_id(), 1, content))


def test_labels_stay_with_the_volume_and_are_checked(state: MetaState) -> None:
    assert state.volumes[1].labels == (("a", "1"), ("b", "2"))
    for labels in ((("b", ""), ("a", "")), (("a", ""), ("a", "")), (("a", "x" * 20000),)):
        refused = run(
            state, cmd.CreateVolume(new_id(), 1, "w", "default", 4096, 1 << 24, 1, labels)
        )
        assert refused.reason is Reason.INVALID


def test_publishing_again_is_answered_alike_or_refused(state: MetaState) -> None:
    first = publish(state, "n1", EXCLUSIVE)
    assert isinstance(first, Published)
    assert first.publication.single_node
    assert publish(state, "n1", EXCLUSIVE) == first
    assert publish(state, "n1", READ_ONLY).reason is Reason.EXISTS
    assert publish(state, "n2", EXCLUSIVE).reason is Reason.CONFLICT
    assert publish(state, "n2", READ_ONLY).reason is Reason.CONFLICT
    assert publish(state, "n9", SHARED).reason is Reason.NOT_FOUND


def test_a_node_has_as_many_volumes_as_it_may(state: MetaState) -> None:
    run(state, cmd.RegisterNode(new_id(), 9, "n1", "z", 2))
    for name in ("w", "x"):
        run(state, cmd.CreateVolume(new_id(), 9, name, "default", 4096, 1 << 24, 1))
    publish(state, "n1", SHARED)
    publish(state, "n2", SHARED)
    assert isinstance(run(state, cmd.PublishVolume(new_id(), 5, 2, "n1", SHARED, False)), Published)
    restored = restore([snapshot(state)])
    for each in (state, restored):
        full = run(each, cmd.PublishVolume(new_id(), 5, 3, "n1", SHARED, False))
        assert full.reason is Reason.FULL
        assert isinstance(publish(each, "n1", SHARED), Published)  # it has that one
    run(state, cmd.DeleteVolume(new_id(), "", 2, True))
    assert isinstance(run(state, cmd.PublishVolume(new_id(), 5, 3, "n1", SHARED, False)), Published)
    unpublish(state)
    assert state.published_to("n1") == 1


def test_nodes_are_registered_once_and_may_move(state: MetaState) -> None:
    moved = run(state, cmd.RegisterNode(new_id(), 9, "n1", "y"))
    assert (moved.zone, moved.registered_at_ms) == ("y", 3)
    assert list(state.nodes) == ["n1", "n2", "n3"]
    assert run(state, cmd.RegisterNode(new_id(), 9, "", "y")).reason is Reason.INVALID
    assert restore([snapshot(state)]).nodes == state.nodes


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ((SHARED, False), (SHARED, False), True),
        ((READ_ONLY, False), (READ_ONLY, False), True),
        ((SHARED, False), (READ_ONLY, False), True),
        ((SHARED, True), (SHARED, False), False),
        ((READ_ONLY, False), (READ_ONLY, True), False),
        ((READ_ONLY, False), (EXCLUSIVE, False), False),
        ((SHARED, False), (EXCLUSIVE, False), False),
    ],
)
def test_which_publications_go_together(
    state: MetaState, first: Any, second: Any, together: bool
) -> None:
    publish(state, "n1", *first)
    result = publish(state, "n2", *second)
    assert isinstance(result, Published) == together
    assert len(state.volumes[1].publications) == 1 + together


def test_a_node_attaches_only_what_is_published_to_it(state: MetaState) -> None:
    assert attach(state, node="n1", published=True).reason is Reason.CONFLICT
    publish(state, "n1", READ_ONLY)
    assert attach(state, node="n1", published=True).reason is Reason.CONFLICT
    assert isinstance(attach(state, READ_ONLY, "n1", published=True), Attached)
    assert attach(state, READ_ONLY, "n2", published=True).reason is Reason.CONFLICT


def test_an_agent_that_was_started_again_replaces_its_attachment(state: MetaState) -> None:
    publish(state, "n1", SHARED)
    publish(state, "n2", SHARED)
    first = attach(state, SHARED, "n1", published=True).attachment
    other = attach(state, SHARED, "n2", published=True).attachment
    again = attach(state, SHARED, "n1", published=True, refuse=True)
    assert again.fenced == (first,)
    fence = state.volumes[1].fence
    assert not fence.admits(first.epoch)
    assert fence.admits(other.epoch)
    assert fence.admits(again.attachment.epoch)


def test_unpublishing_puts_the_node_out_and_keeps_it_out(state: MetaState) -> None:
    publish(state, "n1", EXCLUSIVE)
    epoch = attach(state, node="n1", published=True).attachment.epoch
    done = unpublish(state, "n1")
    assert done.was_published
    assert done.fence_seq == state.volumes[1].fence_seq
    assert not state.volumes[1].fence.admits(epoch)
    # The node may be slow, and stage only now.
    assert attach(state, node="n1", published=True).reason is Reason.CONFLICT
    again = unpublish(state, "n1")
    assert not again.was_published
    assert again.fence_seq == done.fence_seq  # still to be waited for
    assert isinstance(publish(state, "n2", EXCLUSIVE), Published)


def test_unpublishing_from_all_nodes_spares_who_was_not_published(state: MetaState) -> None:
    publish(state, "n1", SHARED)
    publish(state, "n2", SHARED)
    stranger = attach(state, READ_ONLY).attachment
    attach(state, SHARED, "n1", published=True)
    unpublish(state)
    assert state.volumes[1].publications == ()
    assert state.volumes[1].attachments == (stranger,)
    run(state, cmd.DeleteVolume(new_id(), "", 1, True))
    assert not unpublish(state, "n1").was_published


def test_a_published_volume_is_in_use(state: MetaState) -> None:
    publish(state, "n1", EXCLUSIVE)
    refused = attach(state, refuse=True)
    assert refused.reason is Reason.CONFLICT
    assert "n1" in refused.message
    deleted = run(state, cmd.DeleteVolume(new_id(), "", 1, False))
    assert deleted.reason is Reason.CONFLICT
    assert "n1" in deleted.message
    # Who takes it away takes the permission too, so that the node does not take it back.
    assert isinstance(attach(state), Attached)
    assert attach(state, node="n1", published=True).reason is Reason.CONFLICT


def test_a_node_that_loses_its_permission_loses_what_it_reads_by(state: MetaState) -> None:
    publish(state, "n1", EXCLUSIVE)
    reader = attach(state, READ_ONLY, "n1", published=True).attachment
    taken = attach(state, SHARED)
    assert taken.fenced == (reader,)
    assert state.volumes[1].publications == ()


def test_what_somebody_else_has_attached_is_not_published(state: MetaState) -> None:
    attach(state)
    refused = publish(state, "n1", EXCLUSIVE)
    assert refused.reason is Reason.CONFLICT
    assert "somebody" in refused.message


def test_content_is_known_as_long_as_only_publications_write(state: MetaState) -> None:
    publish(state, "n1", EXCLUSIVE)
    attach(state, node="n1", published=True)
    assert state.volumes[1].content is VolumeContent.NEW
    assert mark(state, VolumeContent.EXT4).content is VolumeContent.EXT4
    assert mark(state, VolumeContent.EXT4).content is VolumeContent.EXT4
    assert mark(state, VolumeContent.XFS).reason is Reason.CONFLICT
    assert mark(state, VolumeContent.NEW).reason is Reason.CONFLICT


def test_content_is_unknown_once_somebody_else_may_have_written(state: MetaState) -> None:
    attach(state, READ_ONLY)
    assert state.volumes[1].content is VolumeContent.NEW
    attach(state)
    assert state.volumes[1].content is VolumeContent.UNKNOWN
    assert mark(state, VolumeContent.NEW).reason is Reason.INVALID
    assert mark(state, VolumeContent.RAW).content is VolumeContent.RAW


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_epoch_of_a_node_lives_without_its_permission(data: st.DataObject) -> None:
    """Random publishing, attaching and stealing: whoever was put out stays out, and exclusive is
    exclusive.
    """
    state = made_state()
    dead: set[int] = set()
    nodes = st.sampled_from(["n1", "n2", "n3"])
    modes = st.sampled_from(list(AttachMode))
    for _ in range(data.draw(st.integers(1, 20))):
        before = {a.epoch for a in state.volumes[1].attachments}
        result: Any
        match data.draw(st.integers(0, 3)):
            case 0:
                result = publish(
                    state, data.draw(nodes), data.draw(modes), data.draw(st.booleans())
                )
            case 1:
                result = unpublish(state, data.draw(nodes))
            case 2:
                result = attach(state, data.draw(modes), data.draw(nodes), published=True)
            case _:
                result = attach(state, data.draw(modes), refuse=data.draw(st.booleans()))
        volume = state.volumes[1]
        if isinstance(result, Refusal):
            assert {a.epoch for a in volume.attachments} == before
        dead |= before - {a.epoch for a in volume.attachments}
        for attachment in volume.attachments:
            assert volume.fence.admits(attachment.epoch)
            if attachment.node_id:
                assert volume.publication(attachment.node_id) is not None
        assert not any(volume.fence.admits(epoch) for epoch in dead)
        of_nodes = [a.node_id for a in volume.attachments if a.node_id]
        assert len(of_nodes) == len(set(of_nodes))
        if any(p.single_node for p in volume.publications):
            assert len(volume.publications) == 1
        if any(a.mode is EXCLUSIVE for a in volume.attachments):
            assert sum(a.mode is not READ_ONLY for a in volume.attachments) == 1
