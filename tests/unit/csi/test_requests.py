"""What a CSI request may say: capacities, capabilities, parameters, handles."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.capabilities import parse_access, parse_accesses
from csi_driver.capacity import BYTES_MAX, MIB, grown_size, in_range, size_for
from csi_driver.controller import volume_name
from csi_driver.failures import CsiError
from csi_driver.handle import Handle, parse_handle
from csi_driver.in_flight import InFlight
from csi_driver.parameters import parse_auto_grow, parse_interval, parse_parameters
from csi_driver.proto import csi_pb2 as csi
from curve_py.client.records import AttachMode
from metaserver.domain.limits import check_name

Mode = csi.VolumeCapability.AccessMode
GIB = 1 << 30
bytes_asked = st.integers(0, BYTES_MAX + GIB)


def mount(mode: int, file_system: str = "", *flags: str) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(fs_type=file_system, mount_flags=flags),
        access_mode=Mode(mode=mode),  # type: ignore[arg-type]
    )


def block(mode: int) -> csi.VolumeCapability:
    return csi.VolumeCapability(
        block=csi.VolumeCapability.BlockVolume(),
        access_mode=Mode(mode=mode),  # type: ignore[arg-type]
    )


def status_of(error: pytest.ExceptionInfo[CsiError]) -> grpc.StatusCode:
    return error.value.status


# --- Capacity -----------------------------------------------------------------------------------


@given(bytes_asked, bytes_asked, st.sampled_from(["", "ext4", "xfs"]))
def test_a_size_is_within_what_was_asked_for(required: int, limit: int, kind: str) -> None:
    wanted = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
    try:
        size = size_for(wanted, kind)
    except CsiError as error:
        refused = error.status
    else:
        refused = None
    if refused is not None:
        assert (refused is grpc.StatusCode.INVALID_ARGUMENT) == (0 < limit < required)
        return
    assert in_range(size, wanted)
    assert size % MIB == 0
    assert 0 < size <= BYTES_MAX
    assert size >= {"": MIB, "ext4": 16 * MIB, "xfs": 320 * MIB}[kind]


def test_sizes_that_are_not_said() -> None:
    assert size_for(csi.CapacityRange(), "ext4") == 10 * GIB
    assert size_for(csi.CapacityRange(limit_bytes=3 * GIB + 5), "xfs") == 3 * GIB
    assert size_for(csi.CapacityRange(required_bytes=1), "xfs") == 320 * MIB
    with pytest.raises(CsiError) as refused:
        size_for(csi.CapacityRange(required_bytes=1, limit_bytes=MIB), "xfs")
    assert status_of(refused) is grpc.StatusCode.OUT_OF_RANGE
    with pytest.raises(CsiError) as refused:
        size_for(csi.CapacityRange(required_bytes=-1), "")
    assert status_of(refused) is grpc.StatusCode.INVALID_ARGUMENT


@given(bytes_asked, bytes_asked, st.integers(1, BYTES_MAX // MIB))
def test_a_volume_never_shrinks(required: int, limit: int, now_mib: int) -> None:
    wanted = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
    try:
        size = grown_size(wanted, now_mib * MIB)
    except CsiError:
        return
    assert size >= now_mib * MIB
    assert in_range(size, wanted)
    assert grown_size(wanted, size) == size  # asked again


# --- Capabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "mode", "single"),
    [
        (mount(Mode.SINGLE_NODE_WRITER), AttachMode.EXCLUSIVE, True),
        (mount(Mode.SINGLE_NODE_SINGLE_WRITER, "xfs"), AttachMode.EXCLUSIVE, True),
        (block(Mode.SINGLE_NODE_MULTI_WRITER), AttachMode.EXCLUSIVE, True),
        (mount(Mode.SINGLE_NODE_READER_ONLY), AttachMode.READ_ONLY, True),
        (mount(Mode.MULTI_NODE_READER_ONLY), AttachMode.READ_ONLY, False),
        (block(Mode.MULTI_NODE_MULTI_WRITER), AttachMode.SHARED, False),
    ],
)
def test_each_access_mode_has_its_attachment(
    capability: csi.VolumeCapability, mode: AttachMode, single: bool
) -> None:
    access = parse_access(capability)
    assert (access.attach_mode(), access.single_node) == (mode, single)
    assert access.attach_mode(readonly=True) is AttachMode.READ_ONLY


@pytest.mark.parametrize(
    "capability",
    [
        mount(Mode.MULTI_NODE_MULTI_WRITER),
        mount(Mode.MULTI_NODE_SINGLE_WRITER),
        block(Mode.MULTI_NODE_SINGLE_WRITER),
        mount(Mode.UNKNOWN),
        mount(99),
        mount(Mode.SINGLE_NODE_WRITER, "btrfs"),
        mount(Mode.SINGLE_NODE_WRITER, "ext4", ""),
        mount(Mode.SINGLE_NODE_WRITER, "ext4", "-bind"),
        mount(Mode.SINGLE_NODE_WRITER, "ext4", "a\nb"),
        csi.VolumeCapability(access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER)),
    ],
)
def test_other_capabilities_are_refused(capability: csi.VolumeCapability) -> None:
    with pytest.raises(CsiError) as refused:
        parse_access(capability)
    assert status_of(refused) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_volume_has_one_file_system() -> None:
    writer = Mode.SINGLE_NODE_WRITER
    assert len(parse_accesses([mount(writer, "xfs"), block(writer)])) == 2
    for capabilities in ([], [mount(writer, "xfs"), mount(writer, "ext4")]):
        with pytest.raises(CsiError):
            parse_accesses(capabilities)


# --- Parameters ---------------------------------------------------------------------------------


def test_parameters_have_a_normal_form() -> None:
    parsed = parse_parameters(
        {
            "stripeUnit": "1MiB",
            "stripeCount": "4",
            "autoGrowLimit": "1TiB",
            "trimInterval": "24h",
            "csi.storage.k8s.io/pvc/name": "data",
        }
    )
    assert parsed.normal() == {
        "pool": "",
        "stripeUnit": "1048576",
        "stripeCount": "4",
        "accessibleFrom": "anywhere",
        "autoGrowThreshold": "80",
        "autoGrowStep": "20%",
        "autoGrowLimit": str(1 << 40),
        "trimInterval": "86400s",
    }
    again = parse_parameters(parsed.context())
    assert again.context() == parsed.context()


@pytest.mark.parametrize(
    "given_parameters",
    [
        {"colour": "red"},
        {"stripeUnit": "much"},
        {"stripeCount": "-1"},
        {"accessibleFrom": "here"},
        {"trimInterval": "24"},
        {"autoGrowThreshold": "80"},
        {"autoGrowThreshold": "100", "autoGrowLimit": "1T"},
        {"autoGrowStep": "0%", "autoGrowLimit": "1T"},
        {"autoGrowStep": "0", "autoGrowLimit": "1T"},
    ],
)
def test_wrong_parameters_are_refused(given_parameters: dict[str, str]) -> None:
    with pytest.raises(CsiError) as refused:
        parse_parameters(given_parameters)
    assert status_of(refused) is grpc.StatusCode.INVALID_ARGUMENT


def test_growing_goes_by_steps_up_to_the_limit() -> None:
    by_share = parse_auto_grow({"autoGrowLimit": "10GiB", "autoGrowStep": "50%"})
    assert by_share is not None
    assert by_share.next_size(4 * GIB) == 6 * GIB
    assert by_share.next_size(8 * GIB) == 10 * GIB
    assert by_share.next_size(10 * GIB) == 10 * GIB
    assert by_share.next_size(12 * GIB) == 12 * GIB  # somebody has grown it further
    by_size = parse_auto_grow({"autoGrowLimit": "10GiB", "autoGrowStep": "1GiB"})
    assert by_size is not None
    assert by_size.next_size(GIB + 5) == 2 * GIB + MIB
    assert parse_interval("trimInterval", "90s") == 90


@given(st.integers(1, 2**45), st.integers(1, 2**20), st.sampled_from(["1", "3MiB", "20%", "100%"]))
def test_growing_ends_at_the_last_size_within_the_limit(limit: int, mib: int, step: str) -> None:
    rule = parse_auto_grow({"autoGrowLimit": str(limit), "autoGrowStep": step})
    assert rule is not None
    size = rule.next_size(mib * MIB)
    assert size % MIB == 0
    assert size == mib * MIB or size <= limit
    assert size > mib * MIB or size + MIB > limit


# --- Names, handles, work in flight -------------------------------------------------------------


@given(st.text(min_size=1, max_size=128))
def test_every_name_has_a_volume_name(name: str) -> None:
    assert check_name(volume_name(name), "volume") is None


def test_names_that_are_names_stay() -> None:
    assert volume_name("pvc-1.a_b") == "pvc-1.a_b"
    assert volume_name("a b").startswith("csi-")
    assert volume_name("a b") != volume_name("a c")


@given(st.integers(1, 2**62), st.uuids())
def test_handles_are_read_back(volume_id: int, uuid: object) -> None:
    handle = Handle(volume_id, str(uuid))
    assert parse_handle(str(handle)) == handle
    assert len(str(handle)) <= 128


@pytest.mark.parametrize("text", ["", "1", "curve-0-", "curve-1-xyz", "fake-vol-id-8315d377-8"])
def test_other_handles_are_nobodys(text: str) -> None:
    assert parse_handle(text) is None


def test_work_in_flight_is_said_to_be() -> None:
    in_flight = InFlight()
    with in_flight.holding("v"):
        with pytest.raises(CsiError) as refused, in_flight.holding("v"):
            pass
        assert status_of(refused) is grpc.StatusCode.ABORTED
        with in_flight.holding("w"):
            pass
    with in_flight.holding("v"):
        pass
