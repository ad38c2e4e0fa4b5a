"""The guest's file system: an uncompressed cpio archive ("newc") that the kernel unpacks at start.

Owns: which programs, libraries and kernel modules the guest has, and the order in which the modules
are loaded. Dependencies of modules are read from the modules themselves, so no depmod is needed; a
module that is not found is taken to be built in. Needs no privileges. May block.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MODULES = ("virtio_pci", "virtio_net", "crc32c_generic", "ext4", "nbd")
# Of the guest that has the host's programs.
HOST_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "9pnet_virtio",
    "9p",
    "crc32c_generic",
    "ext4",
    "fuse",
    "loop",
    "nbd",
)
PROGRAMS = (
    "blkdiscard",
    "blockdev",
    "cmp",
    "dd",
    "fsck.ext4",
    "fstrim",
    "mkfs.ext4",
    "nbd-client",
    "sha256sum",
)
_SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Archive:
    """The members of a newc archive: cpio(5), "New ASCII Format"."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def directory(self, name: str) -> None:
        for parent in reversed(Path(name).parents):
            if str(parent) != ".":
                self._add(str(parent), stat.S_IFDIR | 0o755, b"")
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o755) -> None:
        self.directory(str(Path(name).parent))
        self._add(name, stat.S_IFREG | mode, content)

    def character_device(self, name: str, major: int, minor: int) -> None:
        self.directory(str(Path(name).parent))
        self._add(name, stat.S_IFCHR | 0o600, b"", major, minor)

    def encoded(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        if name in self._names:
            return
        self._names.add(name)
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device, special device, name size, check
        fields = (len(self._names), mode, 0, 0, 1, 0, len(content), 0, 0, major, minor)
        head = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(encoded), 0))
        for part in (head + encoded, content):
            self._parts += [part, b"\0" * (-len(part) % 4)]


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _module_content(path: Path) -> bytes:
    for suffix, command in ((".zst", "zstd"), (".xz", "xz")):
        if path.suffix == suffix:
            return subprocess.run(
                [command, "-dc", str(path)], check=True, capture_output=True, timeout=60
            ).stdout
    return path.read_bytes()


def load_modules(tree: Path, names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Name and content of the modules that the guest needs, dependencies first."""
    found = {_module_name(path): path for path in tree.rglob("*.ko*")}
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered or name not in found:
            return
        content = _module_content(found[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for dependency in depends.group(1).decode().split(",") if depends else ():
            visit(dependency.replace("-", "_"))
        ordered[name] = content

    for name in names:
        visit(name)
    if not {"nbd", "9p"} & ordered.keys():
        raise SystemExit(f"the modules of the test are not below {tree}")
    return list(ordered.items())


def _libraries(program: str) -> list[str]:
    output = subprocess.run(
        ["ldd", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return re.findall(r"(/\S+) \(0x", output)


def build(modules: Path, busybox: Path, init: Path, *, of_host: bool) -> bytes:
    """`of_host`: the guest has the host's file system, and needs no programs of its own."""
    archive = Archive()
    for directory in ("bin", "dev", "mnt", "proc", "sys", "tmp"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", init.read_bytes())
    archive.file("bin/busybox", busybox.read_bytes())
    for program in () if of_host else PROGRAMS:
        path = shutil.which(program, path=_SEARCH_PATH)
        if path is None:
            raise SystemExit(f"the program {program} is not installed")
        archive.file(f"tools/{program}", Path(path).read_bytes())
        for library in _libraries(path):
            archive.file(library.lstrip("/"), Path(library).read_bytes())
    for number, (name, content) in enumerate(
        load_modules(modules, HOST_MODULES if of_host else MODULES)
    ):
        archive.file(f"modules/{number:02}-{name}.ko", content)
    return archive.encoded()


if __name__ == "__main__":
    modules, busybox, init, output = map(Path, sys.argv[1:5])
    output.write_bytes(build(modules, busybox, init, of_host="--of-host" in sys.argv[5:]))
