"""The state machine: what commands do; the same log gives the same bytes (R1, R12, R16)."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaserver.domain import commands as cmd
from metaserver.domain import state as state_module
from metaserver.domain.codec import CodecError, decode_command, encode_command
from metaserver.domain.entities import (
    NO_EPOCHS,
    Attached,
    AttachMode,
    Chunkserver,
    Deleted,
    Detached,
    FailureDomain,
    Fence,
    MoveReason,
    MoveStep,
    Pool,
    Reason,
    Refusal,
    Volume,
    VolumeContent,
)
from metaserver.domain.fencing import raised
from metaserver.domain.placement import ImpossiblePlacementError, domain_of, place
from metaserver.domain.snapshot import Capture, restore
from metaserver.domain.state import MetaState

STORES = [bytes([n]) * 16 for n in (1, 2, 3)]
SPARE = bytes([4]) * 16


def register(store_id: bytes, port: int = 7000) -> cmd.RegisterChunkserver:
    return cmd.RegisterChunkserver(
        store_id, f"127.0.0.1:{port}", "127.0.0.1:1", "", "z", "s", 1 << 40, 5
    )


def pool_command(request_id: bytes = b"p" * 16, copysets: int = 4) -> cmd.CreatePool:
    rows = tuple((i % 3, (i + 1) % 3, (i + 2) % 3) for i in range(copysets))
    return cmd.CreatePool(
        request_id, 7, "default", 3, FailureDomain.CHUNKSERVER, tuple(STORES), rows
    )


def create(name: str, number: int, size: int = 1 << 30) -> cmd.CreateVolume:
    return cmd.CreateVolume(number.to_bytes(16, "big"), 9, name, "default", size, 1 << 24, 1)


def attach(
    name: str, number: int, mode: AttachMode = AttachMode.EXCLUSIVE, refuse: bool = False
) -> cmd.AttachVolume:
    holder = f"holder-{number}"
    return cmd.AttachVolume(number.to_bytes(16, "big"), 9, name, 0, mode, holder, refuse)


def run(state: MetaState, command: cmd.Command) -> Any:
    return state.apply(encode_command(command))


def snapshot(state: MetaState) -> bytes:
    return b"".join(Capture(state).slices())


@pytest.fixture
def state() -> MetaState:
    state = MetaState()
    run(state, cmd.InitCluster(b"c" * 16, "test", 1))
    for number, store in enumerate(STORES):
        run(state, register(store, 7000 + number))
    assert isinstance(run(state, pool_command()), Pool)
    for store in STORES:
        run(state, cmd.ConfirmFormed(1, store))
    return state


def test_a_request_is_applied_once_and_answered_alike(state: MetaState) -> None:
    first = run(state, create("a", 1))
    assert isinstance(first, Volume)
    assert run(state, create("a", 1)) == first
    assert len(state.volumes) == 1
    # Also a refusal is remembered, and also after what it depended on has changed.
    refused = run(state, create("a", 2))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.EXISTS
    assert isinstance(run(state, cmd.DeleteVolume(b"d" * 16, "a", 0, False)), Deleted)
    assert run(state, create("a", 2)) == refused
    assert run(state, create("a", 1)) == first
    assert not state.volumes


def test_a_request_id_serves_one_request_only(state: MetaState) -> None:
    run(state, create("a", 1))
    refused = run(state, attach("a", 1))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.INVALID


def test_the_memory_of_requests_is_bounded_and_the_same_everywhere(
    state: MetaState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "REMEMBERED_MAX", 8)
    twin = restore([snapshot(state)])
    for number in range(1, 30):
        run(state, create(f"v{number}", number))
        run(twin, create(f"v{number}", number))
    assert len(state.remembered) == 8
    assert snapshot(state) == snapshot(twin)


def test_volume_ids_are_never_used_twice(state: MetaState) -> None:
    seen = set()
    for number in range(20):
        volume = run(state, create("same", number * 2 + 1))
        assert volume.volume_id not in seen
        seen.add(volume.volume_id)
        deleted = run(
            state, cmd.DeleteVolume((number * 2 + 2).to_bytes(16, "big"), "same", 0, False)
        )
        assert deleted == Deleted(volume.volume_id)
    assert {d.volume_id for d in state.deletions.values()} == seen


def test_resize_grows_only(state: MetaState) -> None:
    run(state, create("a", 1, 1 << 30))
    grown = run(state, cmd.ResizeVolume(b"r" * 16, "a", 0, 1 << 31))
    assert grown.size_bytes == 1 << 31
    refused = run(state, cmd.ResizeVolume(b"s" * 16, "a", 0, 1 << 30))
    assert refused.reason is Reason.CONFLICT
    assert "shrink" in refused.message
    assert state.volumes[1].size_bytes == 1 << 31
    assert state.volume_bytes == 1 << 31


@pytest.mark.parametrize(
    ("name", "size", "unit", "count"),
    [
        ("", 4096, 1 << 24, 1),
        ("-x", 4096, 1 << 24, 1),
        ("a/b", 4096, 1 << 24, 1),
        ("a", 0, 1 << 24, 1),
        ("a", 4097, 1 << 24, 1),
        ("a", 1 << 60, 1 << 24, 1),
        ("a", 4096, 1 << 15, 1),
        ("a", 4096, 3 << 20, 1),
        ("a", 4096, 1 << 25, 1),
        ("a", 4096, 1 << 24, 0),
        ("a", 4096, 1 << 24, 1025),
    ],
)
def test_malformed_volumes_are_refused(
    state: MetaState, name: str, size: int, unit: int, count: int
) -> None:
    result = run(state, cmd.CreateVolume(b"q" * 16, 1, name, "default", size, unit, count))
    assert isinstance(result, Refusal)
    assert result.reason is Reason.INVALID
    assert not state.volumes


# --- Attachments (R12) --------------------------------------------------------------------------


def test_a_second_exclusive_attach_fences_the_first(state: MetaState) -> None:
    run(state, create("a", 1))
    first = run(state, attach("a", 2))
    second = run(state, attach("a", 3))
    assert isinstance(second, Attached)
    assert second.fenced == (first.attachment,)
    volume = state.volumes[1]
    assert [a.epoch for a in volume.attachments] == [second.attachment.epoch]
    assert not volume.fence.admits(first.attachment.epoch)
    assert volume.fence.admits(second.attachment.epoch)
    assert volume.fence == Fence(2, 2, ())


def test_an_attach_can_ask_to_be_refused(state: MetaState) -> None:
    run(state, create("a", 1))
    run(state, attach("a", 2))
    refused = run(state, attach("a", 3, refuse=True))
    assert refused.reason is Reason.CONFLICT
    assert "holder-2" in refused.message
    assert state.volumes[1].fence.admits(1)


def test_shared_attachments_live_together_and_a_detached_one_is_revoked(state: MetaState) -> None:
    run(state, create("a", 1))
    attached = [run(state, attach("a", n, AttachMode.SHARED)).attachment for n in (2, 3, 4)]
    volume = state.volumes[1]
    assert volume.fence == Fence(1, 3, ())
    gone = run(state, cmd.DetachVolume(b"x" * 16, 1, attached[1].attachment_id))
    assert gone == Detached(1, was_attached=True)
    assert state.volumes[1].fence == Fence(1, 3, (2,))
    run(state, cmd.DetachVolume(b"y" * 16, 1, attached[0].attachment_id))
    assert state.volumes[1].fence == Fence(3, 3, ())
    run(state, cmd.DetachVolume(b"z" * 16, 1, attached[2].attachment_id))
    assert not any(state.volumes[1].fence.admits(epoch) for epoch in range(10))


def test_a_shared_attach_fences_an_exclusive_one_and_spares_readers(state: MetaState) -> None:
    run(state, create("a", 1))
    writer = run(state, attach("a", 2)).attachment
    reader = run(state, attach("a", 3, AttachMode.READ_ONLY)).attachment
    assert state.volumes[1].fence.admits(writer.epoch)
    shared = run(state, attach("a", 4, AttachMode.SHARED))
    assert shared.fenced == (writer,)
    fence = state.volumes[1].fence
    assert not fence.admits(writer.epoch)
    assert fence.admits(reader.epoch)
    assert fence.admits(shared.attachment.epoch)


def test_an_attachment_is_active_only_once_its_fence_is_everywhere(state: MetaState) -> None:
    run(state, create("a", 1))
    attachment = run(state, attach("a", 2)).attachment
    assert not state.volumes[1].is_active(attachment)
    assert state.unfenced_volumes() == [1]
    run(state, cmd.ConfirmFenced(1, attachment.fence_seq))
    assert state.volumes[1].is_active(attachment)
    assert state.unfenced_volumes() == []
    later = run(state, attach("a", 3)).attachment
    run(state, cmd.ConfirmFenced(1, attachment.fence_seq))  # late news of the earlier fence
    assert not state.volumes[1].is_active(later)


def test_an_attachment_is_opened_again_only_by_who_still_has_it(state: MetaState) -> None:
    """A process that was replaced goes on (R12), but never takes back what somebody else took."""
    run(state, create("v", 1))
    first = run(state, attach("v", 2, AttachMode.SHARED)).attachment
    beside = run(state, attach("v", 3, AttachMode.SHARED)).attachment
    again = replace(attach("v", 4, AttachMode.SHARED, True), continues=first.attachment_id)
    answer = run(state, again)
    assert answer.fenced == (first,)
    fence = state.find_volume("v", 0).fence
    assert not fence.admits(first.epoch)
    assert fence.admits(beside.epoch)
    assert fence.admits(answer.attachment.epoch)
    # Its own predecessor has ended, and so has one that was fenced by another.
    late = replace(attach("v", 5, AttachMode.SHARED), continues=first.attachment_id)
    assert run(state, late).reason is Reason.FENCED
    owner = run(state, attach("v", 6)).attachment
    stolen = attach("v", 7, AttachMode.SHARED)
    stolen = replace(stolen, continues=answer.attachment.attachment_id)
    assert run(state, stolen).reason is Reason.FENCED
    other_mode = replace(attach("v", 8, AttachMode.SHARED), continues=owner.attachment_id)
    assert run(state, other_mode).reason is Reason.FENCED
    assert state.find_volume("v", 0).attachments == (owner,)


def test_a_successor_that_died_before_its_answer_is_continued(state: MetaState) -> None:
    run(state, create("v", 1))
    first = run(state, replace(attach("v", 2), node_id="n")).attachment
    again = replace(attach("v", 3), node_id="n", continues=first.attachment_id)
    unknown = run(state, again).attachment  # its answer was not heard
    third = run(state, replace(again, request_id=b"4" * 16)).attachment
    assert state.find_volume("v", 0).attachments == (third,)
    assert third.epoch > unknown.epoch > first.epoch
    run(state, replace(attach("v", 5), node_id="m"))
    late = replace(again, request_id=b"6" * 16, continues=third.attachment_id)
    assert run(state, late).reason is Reason.FENCED


def test_too_many_attachments_beside_an_old_one_are_refused(state: MetaState) -> None:
    run(state, create("a", 1))
    run(state, attach("a", 2, AttachMode.READ_ONLY))
    result: Any = None
    for number in range(3, 300):
        result = run(state, attach("a", number))
        if isinstance(result, Refusal):
            break
        attachment_id = result.attachment.attachment_id
        run(state, cmd.DetachVolume((number << 32).to_bytes(16, "big"), 1, attachment_id))
        readers = [a for a in state.volumes[1].attachments if a.mode is AttachMode.READ_ONLY]
        if not readers:
            run(state, attach("a", number << 40, AttachMode.READ_ONLY))
    assert len(state.volumes[1].fence.revoked) <= 64


def test_an_attached_volume_is_deleted_only_by_force(state: MetaState) -> None:
    run(state, create("a", 1))
    run(state, attach("a", 2))
    refused = run(state, cmd.DeleteVolume(b"1" * 16, "a", 0, False))
    assert refused.reason is Reason.CONFLICT
    assert run(state, cmd.DeleteVolume(b"2" * 16, "a", 0, True)) == Deleted(1)
    assert state.attachment_count == 0
    assert list(state.deletions) == [1]
    run(state, cmd.ConfirmDeleted(1))
    assert not state.deletions


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_fences_only_rise(data: st.DataObject) -> None:
    fence, valid, next_epoch, dead = NO_EPOCHS, set[int](), 1, set[int]()
    for _ in range(data.draw(st.integers(1, 25))):
        keep = {epoch for epoch in valid if data.draw(st.booleans())}
        dead |= valid - keep
        if data.draw(st.booleans()):
            keep.add(next_epoch)
            next_epoch += 1
        newer = raised(fence, keep, next_epoch - 1)
        if next_epoch > 1:
            assert newer.floor >= fence.floor
            assert newer.ceiling >= fence.ceiling
            assert newer.floor <= newer.ceiling
            assert all(newer.admits(epoch) for epoch in keep)
            assert not any(newer.admits(epoch) for epoch in dead)
        fence, valid = newer, keep


# --- Determinism (R16) --------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> list[cmd.Command]:
    """Logs with retries, refusals and nonsense in them."""
    names = st.sampled_from(["a", "b", "c", "", "?"])
    ids = st.integers(1, 40).map(lambda n: n.to_bytes(16, "big"))
    small = st.integers(0, 6)
    stores = st.sampled_from([*STORES, SPARE, b"?" * 16])
    copysets = st.sampled_from([1 << 32, 1 << 32 | 1, 1 << 32 | 9])
    reasons = st.sampled_from(list(MoveReason))
    nodes = st.sampled_from(["", "n1", "n2"])
    contents = st.sampled_from(list(VolumeContent))
    # The state's version when the move was started; the log below starts at 8 or so.
    move_ids = st.integers(8, 30)
    command = st.one_of(
        st.builds(
            cmd.CreateVolume,
            ids,
            small,
            names,
            st.sampled_from(["default", "none"]),
            st.sampled_from([4096, 8192, 1]),
            st.just(1 << 24),
            st.just(1),
            st.sampled_from([(), (("a", "b"),), (("b", ""), ("a", ""))]),
            contents,
        ),
        st.builds(cmd.ResizeVolume, ids, names, small, st.sampled_from([4096, 8192, 12288])),
        st.builds(cmd.DeleteVolume, ids, names, small, st.booleans()),
        st.builds(cmd.ConfirmDeleted, small),
        st.builds(
            cmd.AttachVolume,
            ids,
            small,
            names,
            small,
            st.sampled_from(list(AttachMode)),
            st.just("h"),
            st.booleans(),
            nodes,
            st.booleans(),
        ),
        st.builds(
            cmd.PublishVolume,
            ids,
            small,
            small,
            nodes,
            st.sampled_from(list(AttachMode)),
            st.booleans(),
        ),
        st.builds(cmd.RegisterNode, ids, small, nodes, st.sampled_from(["", "z1", "z2"]), small),
        st.builds(cmd.UnpublishVolume, ids, small, nodes),
        st.builds(cmd.SetVolumeContent, ids, small, contents),
        st.builds(cmd.ConfirmFenced, small, small),
        st.builds(cmd.DetachVolume, ids, small, small),
        st.builds(cmd.DrainChunkserver, ids, stores, st.booleans()),
        st.builds(cmd.RemoveChunkserver, ids, stores),
        st.builds(cmd.StartMove, copysets, stores, stores, reasons, st.just("why"), small, small),
        st.builds(cmd.AdvanceMove, copysets, move_ids, st.sampled_from(list(MoveStep))),
        st.builds(cmd.CancelMove, copysets, move_ids, st.just("because")),
        st.builds(cmd.EndMove, copysets, move_ids, stores, small, small),
        st.builds(cmd.PreferLeader, copysets, stores),
        st.builds(cmd.ConfirmPreferred, copysets, stores),
    )
    start: list[cmd.Command] = [cmd.InitCluster(b"c" * 16, "test", 1)]
    start += [register(store, 7000 + n) for n, store in enumerate(STORES)]
    start += [pool_command(), *(cmd.ConfirmFormed(1, store) for store in STORES)]
    start += [register(SPARE, 7003)]
    return [*start, *draw(st.lists(command, max_size=40))]


@given(logs(), st.integers(0, 45))
@settings(max_examples=150, deadline=None)
def test_the_same_log_gives_the_same_bytes(log: list[cmd.Command], cut: int) -> None:
    """From the start, and from a snapshot in the middle; and results are the same."""
    whole, data = MetaState(), [encode_command(command) for command in log]
    results = [whole.apply(command) for command in data]
    first = MetaState()
    for command in data[:cut]:
        first.apply(command)
    second = restore([snapshot(first)])
    for command, result in zip(data[cut:], results[cut:], strict=True):
        assert second.apply(command) == result
    assert snapshot(second) == snapshot(whole)
    assert (
        second.volume_bytes
        == whole.volume_bytes
        == sum(volume.size_bytes for volume in whole.volumes.values())
    )
    assert second.attachment_count == whole.attachment_count
    assert set(second.unfenced_volumes()) == set(whole.unfenced_volumes())


@given(logs())
@settings(max_examples=100, deadline=None)
def test_retries_change_nothing(log: list[cmd.Command]) -> None:
    once, twice = MetaState(), MetaState()
    for command in log:
        result = run(once, command)
        assert run(twice, command) == result
        if command.request_id:
            before = snapshot(twice)
            assert run(twice, command) == result
            assert snapshot(twice) == before


def test_a_capture_is_not_disturbed_by_later_changes(state: MetaState) -> None:
    for number in range(1, 300):
        run(state, create(f"v{number}", number))
    expected = snapshot(state)
    slices = Capture(state).slices()
    written = next(slices)
    for number in range(1, 300, 2):
        run(state, cmd.DeleteVolume((number << 20).to_bytes(16, "big"), f"v{number}", 0, False))
    run(state, create("later", 1 << 30))
    assert written + b"".join(slices) == expected
    assert snapshot(state) != expected


def test_a_snapshot_of_version_1_is_read(state: MetaState) -> None:
    """Without moves, lives of chunkservers and preferences that are not told."""
    run(state, create("a", 1))
    # Volumes of that time have content that nobody knows.
    state.put_volume(replace(state.volumes[1], content=VolumeContent.UNKNOWN))
    old = snapshot(state).replace(b'"version":4', b'"version":1', 1)
    old = old.replace(b',"life":"in_service"', b"").replace(b',"preference_told":true', b"")
    for field in (b',"labels":[]', b',"content":"unknown"', b',"publications":[]'):
        assert field in old
        old = old.replace(field, b"")
    assert snapshot(restore([old])) == snapshot(state)


def test_a_snapshot_is_read_in_pieces_of_any_size(state: MetaState) -> None:
    run(state, create("a", 1))
    run(state, attach("a", 2))
    data = snapshot(state)
    pieces = [data[i : i + 37] for i in range(0, len(data), 37)]
    assert snapshot(restore(pieces)) == data


@pytest.mark.parametrize("damage", ["cut", "line", "version", "field", "record", "behind"])
def test_a_damaged_snapshot_is_refused(state: MetaState, damage: str) -> None:
    run(state, create("a", 1))
    data = snapshot(state)
    lines = data.splitlines(keepends=True)
    broken = {
        "cut": data[:-10],
        "line": b"".join(lines[:3] + lines[4:]),
        "version": data.replace(b'"version":4', b'"version":9', 1),
        "field": data.replace(b'"placement_id"', b'"placement_no"', 1),
        "record": data.replace(b'{"is":"Pool"', b'{"is":"Puddle"', 1),
        "behind": data + lines[1],
    }[damage]
    assert broken != data
    with pytest.raises(CodecError):
        restore([broken])


@given(st.binary(max_size=80))
def test_bytes_that_are_no_command_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode_command(data)


def test_an_unknown_command_is_refused_and_not_skipped(state: MetaState) -> None:
    data = encode_command(create("a", 1)).replace(b"CreateVolume", b"CreateVolumes")
    with pytest.raises(CodecError, match="CreateVolumes"):
        state.apply(data)


# --- Placement ----------------------------------------------------------------------------------


def servers(*where: tuple[str, str]) -> list[Chunkserver]:
    return [
        Chunkserver(bytes([n + 1]) * 16, f"10.0.0.{n + 1}:1", "", "", zone, server, 1 << 40, 0)
        for n, (zone, server) in enumerate(where)
    ]


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("123")), min_size=1, max_size=14),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 1 << 32),
)
@settings(max_examples=150, deadline=None)
def test_replicas_are_in_different_domains_and_balanced(
    where: list[tuple[str, str]], replicas: int, seed: int
) -> None:
    chunkservers = servers(*where)
    try:
        placement = place(chunkservers, 32, replicas, None, seed)
    except ImpossiblePlacementError:
        assert len(chunkservers) < replicas
        return
    assert placement == place(chunkservers, 32, replicas, None, seed)
    level = placement.failure_domain
    zones = len({c.zone for c in chunkservers})
    assert (level is FailureDomain.ZONE) == (zones >= replicas)
    for row in placement.copysets:
        assert len({domain_of(chunkservers[p], level) for p in row}) == replicas
        assert len({chunkservers[p].zone for p in row}) == min(zones, replicas)


@pytest.mark.parametrize("count", [3, 4, 6, 9])
def test_load_and_leaders_are_even(count: int) -> None:
    placement = place(servers(*(("z", str(n)) for n in range(count))), 64, 3, None, 1)
    load = Counter(p for row in placement.copysets for p in row)
    leaders = Counter(row[0] for row in placement.copysets)
    assert max(load.values()) - min(load.values()) <= 1
    assert len(leaders) == count
    assert max(leaders.values()) - min(leaders.values()) <= 1


def test_a_domain_that_is_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(ImpossiblePlacementError, match="zones and there are 2"):
        place(servers(("a", "1"), ("a", "2"), ("b", "3")), 4, 3, FailureDomain.ZONE, 1)
    assert place(servers(("a", "1"), ("a", "2"), ("b", "3")), 4, 3, FailureDomain.SERVER, 1)


def test_a_larger_chunkserver_gets_more() -> None:
    small = servers(*(("z", str(n)) for n in range(5)))
    big = Chunkserver(b"B" * 16, "10.0.0.9:1", "", "", "z", "big", 2 << 40, 0)
    load = Counter(p for row in place([*small, big], 64, 3, None, 1).copysets for p in row)
    assert load[5] > max(load[n] for n in range(5))


def test_ten_thousand_volumes_cost_the_same_work_each(state: MetaState) -> None:
    """Counts steps, not time: no command looks at other volumes."""

    class Counting(dict[int, Volume]):
        looks = 0

        def __iter__(self) -> Any:
            Counting.looks += 1
            return super().__iter__()

        def values(self) -> Any:
            Counting.looks += 1
            return super().values()

    state.volumes = Counting(state.volumes)
    order = list(range(1, 10_001))
    random.Random(1).shuffle(order)
    for number in order:
        run(state, create(f"v{number}", number))
    assert Counting.looks == 0
    assert [v.volume_id for v in state.volumes_after(5000, 3)] == [5001, 5002, 5003]
