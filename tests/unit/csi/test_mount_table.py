"""The mount table, as the kernel writes it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from csi_driver.mounter.mount_table import Mount, mounts_at, parse_mount_table

TABLE = """\
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 7:9 / /var/lib/kubelet/a\\040b ro,relatime shared:2 master:3 - xfs /dev/loop9 rw,nouuid
38 35 7:9 / /mnt2 rw - ext4 /dev/loop9 rw
39 35 0:5 /loop9 /pods/dev rw,nosuid shared:7 - devtmpfs udev rw
not a line of it
40 35 x:y / /odd rw - ext4 /dev/sda rw
"""


def test_lines_are_read() -> None:
    mounts = parse_mount_table(TABLE)
    assert mounts == [
        Mount((98, 0), "/mnt1", "/mnt2", ("rw", "noatime"), "ext3", "/dev/root"),
        Mount((7, 9), "/", "/var/lib/kubelet/a b", ("ro", "relatime"), "xfs", "/dev/loop9"),
        Mount((7, 9), "/", "/mnt2", ("rw",), "ext4", "/dev/loop9"),
        Mount((0, 5), "/loop9", "/pods/dev", ("rw", "nosuid"), "devtmpfs", "udev"),
    ]
    assert [mount.file_system for mount in mounts_at(mounts, "/mnt2")] == ["ext3", "ext4"]
    assert [mount.read_only for mount in mounts] == [False, True, False, False]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_target_is_read_back(target: str) -> None:
    escaped = re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", target)
    (mount,) = parse_mount_table(f"1 2 7:0 / {escaped} rw - ext4 /dev/loop0 rw")
    assert mount.target == target


@given(st.text(max_size=200))
def test_other_text_breaks_nothing(text: str) -> None:
    parse_mount_table(text)
