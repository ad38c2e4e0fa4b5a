"""Which type of device is made, and what the kernel's nbd is told. (With the kernel: tests/vm.)"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from curve_py.client import doctor, kernel_nbd
from curve_py.client.doctor import Choice, Finding
from curve_py.errors import CurveIoError


def finding(name: str, ok: bool) -> Finding:
    return Finding(name, ok, f"{name} {'is there' if ok else 'is missing'}.")


def choose(
    *, root: bool = True, fuse: bool = True, nbd: bool = False, wanted: str = "auto"
) -> Choice:
    return doctor._choose(
        [finding("privilege", root)], [finding("fuse", fuse)], finding("nbd", nbd), wanted
    )


@pytest.mark.parametrize(
    ("kernel", "fuse", "nbd", "chosen", "replaceable"),
    [
        ((6, 9), True, True, "fuse", True),
        ((6, 9), True, False, "fuse", True),
        ((6, 9), False, True, "nbd", True),
        ((6, 1), True, True, "nbd", True),
        ((6, 1), True, False, "fuse", False),
        ((6, 1), False, False, "", False),
    ],
)
def test_fuse_if_it_is_replaceable_then_nbd(
    monkeypatch: pytest.MonkeyPatch,
    kernel: tuple[int, int],
    fuse: bool,
    nbd: bool,
    chosen: str,
    replaceable: bool,
) -> None:
    monkeypatch.setattr(doctor, "kernel_version", lambda: kernel)
    found = choose(fuse=fuse, nbd=nbd)
    assert (found.chosen, found.replaceable) == (chosen, replaceable)
    assert not choose(root=False, fuse=fuse, nbd=nbd).chosen


def test_the_settings_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "kernel_version", lambda: (6, 12))
    assert choose(nbd=True, wanted="nbd").chosen == "nbd"
    assert choose(nbd=False, wanted="nbd").reason == "No device can be made: nbd is missing."
    monkeypatch.setattr(doctor, "kernel_version", lambda: (6, 1))
    assert choose(nbd=True, wanted="fuse").chosen == "fuse"
    assert choose(fuse=False, nbd=True, wanted="fuse").reason.endswith("fuse is missing.")
    assert choose(root=False, nbd=True, wanted="nbd").reason.endswith("privilege is missing.")


def test_what_sysfs_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_nbd, "_BLOCK", tmp_path)
    assert kernel_nbd.free_numbers() == [0]
    for number in (0, 1, 10):
        (tmp_path / f"nbd{number}").mkdir()
        (tmp_path / f"nbd{number}" / "dev").write_text(f"43:{number * 32}\n")
    (tmp_path / "nbd1" / "pid").write_text("7\n")
    (tmp_path / "nbd1" / "size").write_text("2048\n")
    (tmp_path / "nbd1" / "backend").write_text("curve:9f2c\n")
    (tmp_path / "nbd10" / "backend").write_text("somebody's\n")
    assert kernel_nbd.free_numbers() == [0, 10, 11]
    assert [kernel_nbd.identity(n) for n in (0, 1, 10, 11)] == ["", "9f2c", "", ""]
    assert [kernel_nbd.size_bytes(n) for n in (0, 1)] == [0, 1 << 20]
    assert kernel_nbd.device_number(10) == (43, 320)
    with pytest.raises(CurveIoError):
        kernel_nbd.device_number(11)


def test_a_connection_that_the_kernel_did_not_take_is_noticed() -> None:
    ours, theirs = kernel_nbd._pair()
    with ours:
        assert not kernel_nbd._is_at_end(ours)
        theirs.close()
        assert kernel_nbd._is_at_end(ours)


def test_messages_are_as_the_kernel_wants_them() -> None:
    """include/uapi/linux/nbd-netlink.h; each attribute: length, type, value, padding."""
    message = kernel_nbd._Message()
    message["cmd"], message["version"] = 1, 1
    item = {"attrs": [("NBD_SOCK_FD", 9)]}
    message["attrs"] = [
        ("NBD_ATTR_INDEX", 3),
        ("NBD_ATTR_SIZE_BYTES", 1 << 30),
        ("NBD_ATTR_SOCKETS", {"attrs": [("NBD_SOCK_ITEM", item)]}),
        ("NBD_ATTR_BACKEND_IDENTIFIER", "curve:abc"),
    ]
    message.encode()
    assert message.data[16:] == bytes.fromhex(
        "01010000"
        "0800 0100 03000000"
        "0c00 0200 0000004000000000"
        "1000 0700 0c00 0100 0800 0100 09000000"
        "0e00 0a00 63757276653a61626300 0000"
    )


def test_both_ends_are_stream_sockets() -> None:
    """Linux takes no others for nbd."""
    for each in kernel_nbd._pair():
        with each:
            assert (each.family, each.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
