"""What the helper process can do: probe, make, check, mount, grow, trim, unmount. All of it blocks.

Owns: which programs are run and what their exit codes mean. No policy: whether a file system may be
made is decided by staging.py. Invariants: a probe that could not read is an error and never
"nothing found"; programs get no standard input, their own process group, and a deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from csi_driver.mounter.mount_table import parse_mount_table

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_EDGE_BYTES = 1 << 20
_OUTPUT_MAX = 400
_TRIM_BYTES = 4 << 30


class CommandError(Exception):
    """In one sentence; `kind`: failed, busy, missing, dead, timeout, occupied (something else is at
    the path), refused (by what was asked of it), privilege.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def run(arguments: list[str], seconds: float, accepted: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Exit code and standard output. Raises CommandError."""
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise CommandError("failed", f"The program {arguments[0]} is not installed.") from None
    try:
        output, complaint = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1.0)
        raise CommandError("timeout", f"{arguments[0]} took more than {seconds:g} s.") from None
    if process.returncode not in accepted:
        said = " ".join((complaint or output).split())[-_OUTPUT_MAX:]
        raise CommandError("failed", f"{arguments[0]} failed ({process.returncode}): {said}")
    return process.returncode, output


def probe(device: str, seconds: float) -> dict[str, str]:
    """What is on it: {"type", "uuid"}; empty texts for nothing. Raises when that cannot be told."""
    code, output = run(["blkid", "-p", "-o", "export", device], seconds, accepted=(0, 2, 8))
    _read_edges(device)  # blkid says 2 for nothing found, and also for what it could not read
    if code == 8:
        return {"type": "several signatures", "uuid": ""}
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    kind = found.get("TYPE", "")
    if not kind and "PTTYPE" in found:
        kind = f"partition table {found['PTTYPE']}"
    if not kind and code == 0:
        kind = "an unknown signature"
    return {"type": kind, "uuid": found.get("UUID", "").lower()}


def _read_edges(device: str) -> None:
    try:
        with open(device, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            for offset in (0, max(0, size - _EDGE_BYTES)):
                file.seek(offset)
                if not file.read(min(size, _EDGE_BYTES)):
                    raise CommandError("failed", f"{device} cannot be read.")
    except OSError as error:
        raise CommandError("failed", f"{device} cannot be read: {error.strerror}.") from None


def make_file_system(device: str, kind: str, uuid: str, seconds: float) -> None:
    """Of whatever an earlier attempt has left nothing stays, seen by a probe or not."""
    run(["blkdiscard", device], seconds)
    if kind == "xfs":
        run(["mkfs.xfs", "-q", "-f", "-K", "-m", f"uuid={uuid}", device], seconds)
        return
    # No zeros are written where there are zeros already: the volume stays thin.
    extended = "nodiscard,assume_storage_prezeroed=1"
    run(["mkfs.ext4", "-q", "-F", "-m", "0", "-U", uuid, "-E", extended, device], seconds)


def check(device: str, kind: str, seconds: float) -> None:
    """Before it is mounted for writing. xfs replays its log when it is mounted, and checks then."""
    if kind == "ext4":
        _check_ext4(device, [], seconds)


def _check_ext4(device: str, flags: list[str], seconds: float) -> None:
    code, output = run(["e2fsck", "-p", *flags, device], seconds, accepted=(0, 1, 2, 4, 8))
    if code >= 4:
        said = " ".join(output.split())[-_OUTPUT_MAX:]
        finding = "is damaged" if code & 4 else "cannot be checked"
        raise CommandError("refused", f"The file system on {device} {finding}: {said}")


def grow_unmounted(device: str, seconds: float) -> bool:
    """ext4, to the whole device, where it could not when it is mounted. Whether it did.

    Not where it can: growing a mounted one is journaled, this is not. Cut off, it needs `check`.
    """
    if may_grow_ext4():
        return False
    _, output = run(["dumpe2fs", "-h", device], seconds)
    found = {
        name: re.search(rf"^{name}:\s+(\d+)$", output, re.MULTILINE)
        for name in ("Block count", "Block size")
    }
    count, size = found["Block count"], found["Block size"]
    if count is None or size is None:
        raise CommandError("failed", f"dumpe2fs does not say the size of what is on {device}.")
    with open(device, "rb", buffering=0) as file:
        device_blocks = file.seek(0, os.SEEK_END) // int(size[1])
    if device_blocks <= int(count[1]):
        return False
    _check_ext4(device, ["-f"], seconds)
    run(["resize2fs", device], seconds)
    return True


def mount(source: str, target: str, kind: str, options: list[str], seconds: float) -> None:
    """Raises CommandError "refused" for options that the kernel does not take, among others."""
    chosen = ["-o", ",".join(options)] if options else []
    try:
        run(["mount", "-t", kind, *chosen, source, target], seconds)
    except CommandError as error:
        given = f" Its options were {','.join(options)}." if options else ""
        kind_of_error = "refused" if error.kind == "failed" else error.kind
        raise CommandError(kind_of_error, error.message + given) from None


def bind(source: str, target: str, read_only: bool, seconds: float) -> None:
    run(["mount", "--bind", source, target], seconds)
    if read_only:
        try:
            run(["mount", "-o", "remount,bind,ro", target], seconds)
        except CommandError:
            unmount(target, lazily=False)
            raise


def unmount(target: str, lazily: bool) -> None:
    """The uppermost mount there. Raises CommandError "busy" or "missing"."""
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)
    if _libc.umount2(os.fsencode(target), flags) == 0:
        return
    number = ctypes.get_errno()
    kind = {errno.EBUSY: "busy", errno.EINVAL: "missing", errno.ENOENT: "missing"}.get(
        number, "failed"
    )
    raise CommandError(kind, f"{target} cannot be unmounted: {os.strerror(number)}.")


def grow(device: str, kind: str, target: str, seconds: float) -> None:
    """To the whole device, mounted. Changes nothing when it has that size."""
    if kind == "xfs":
        run(["xfs_growfs", "-d", target], seconds)
        return
    try:
        run(["resize2fs", device], seconds)
    except CommandError as error:
        if "Permission denied" not in error.message or may_grow_ext4():
            raise
        raise CommandError(
            "privilege", "A mounted ext4 grows only by CAP_SYS_RESOURCE, which is missing here."
        ) from None


def may_grow_ext4() -> bool:
    """Whether this process has CAP_SYS_RESOURCE (capabilities(7)), number 24."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 24 & 1)
    return True


def trim(target: str, offset: int, length: int | None, seconds: float) -> int:
    """Bytes that were given back, of that part of the file system; `length` None: to its end."""
    part = ["--offset", str(offset)]
    part += [] if length is None else ["--length", str(length)]
    _, output = run(["fstrim", "--verbose", *part, target], seconds)
    found = output.partition("(")[2].partition(" ")[0]
    return int(found) if found.isdigit() else 0


def trim_step(target: str, kind: str, seconds: float) -> int:
    """Bytes of a part that `trim` does at a time.

    xfs gives back a free extent as a whole for every part that it reaches into, but none is in two
    allocation groups: whole groups.
    """
    if kind != "xfs":
        return _TRIM_BYTES
    _, output = run(["xfs_info", target], seconds)
    group = re.search(r"agsize=(\d+) blks", output)
    block = re.search(r"data\s*=\s*bsize=(\d+)", output)
    if group is None or block is None:
        raise CommandError("failed", f"xfs_info does not say the allocation groups of {target}.")
    group_bytes = int(group[1]) * int(block[1])
    return group_bytes * max(1, _TRIM_BYTES // group_bytes)


def usage(target: str) -> dict[str, int]:
    """Raises CommandError "dead" when the device behind it is gone."""
    try:
        found = os.statvfs(target)
    except OSError as error:
        raise _of_os_error(target, error) from None
    return {
        "total_bytes": found.f_blocks * found.f_frsize,
        "available_bytes": found.f_bavail * found.f_frsize,
        "used_bytes": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "total_inodes": found.f_files,
        "available_inodes": found.f_favail,
        "used_inodes": found.f_files - found.f_ffree,
    }


def look(path: str, follow: bool) -> dict[str, Any]:
    """What is at a path: {"kind": "missing" | "directory" | "file" | "device" | "link" | "other",
    "device", "size_bytes"}; `follow`: where a link leads.

    Raises CommandError "dead" for the remains of a mount whose device is gone.
    """
    try:
        found = os.stat(path, follow_symlinks=follow)
        device = [os.major(found.st_rdev), os.minor(found.st_rdev)]
        size = found.st_size
        if stat.S_ISBLK(found.st_mode):
            with open(path, "rb", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "missing", "device": [0, 0], "size_bytes": 0}
    except OSError as error:
        raise _of_os_error(path, error) from None
    kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "other")
    return {"kind": kind, "device": device, "size_bytes": size}


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISREG, "file"),
    (stat.S_ISLNK, "link"),
)
_DEAD = (
    errno.ENOTCONN,
    errno.ESTALE,
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESHUTDOWN,
)


def _of_os_error(path: str, error: OSError) -> CommandError:
    kind = "dead" if error.errno in _DEAD else "failed"
    return CommandError(kind, f"{path}: {error.strerror}.")


def canonical(path: str) -> str:
    """As the mount table writes it; what is at its end is not looked at: it may be dead."""
    directory, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(directory), name)


def make_directory(path: str) -> None:
    """An empty one to mount on, with those above it. Raises "occupied" for anything else there."""
    with _of_making(path):
        Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            os.mkdir(path, 0o750)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise CommandError("occupied", f"{path} is not a directory.") from None
            if os.listdir(path):
                raise CommandError("occupied", f"{path} is not empty.") from None


def make_file(path: str) -> None:
    """An empty one to mount a device on, with the directories above it."""
    with _of_making(path):
        Path(path).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) or found.st_size:
                raise CommandError("occupied", f"{path} is not an empty file.") from None


@contextlib.contextmanager
def _of_making(path: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise CommandError("occupied", f"{path} is below something that is a file.") from None
    except OSError as error:
        raise CommandError("failed", f"{path} cannot be made: {error.strerror}.") from None


def remove(path: str) -> None:
    """What make_directory or make_file made. Nothing there is no error; what is not empty, or is
    neither, stays and is "occupied".
    """
    try:
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(path)
        elif stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(path)
        else:
            raise CommandError("occupied", f"{path} is not what a volume was mounted on; it stays.")
    except FileNotFoundError:
        pass
    except OSError as error:
        occupied = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)
        raise CommandError(
            "occupied" if occupied else "failed", f"{path} cannot be removed: {error.strerror}."
        ) from None


def mounts() -> list[dict[str, Any]]:
    table = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    return [asdict(each) for each in parse_mount_table(table)]


def backing_file(major: int, minor: int) -> str:
    """What a loop or nbd device says it is a device of; empty for others."""
    for name in ("loop/backing_file", "backend"):
        with contextlib.suppress(OSError):
            return Path(f"/sys/dev/block/{major}:{minor}/{name}").read_text().strip()
    return ""


COMMANDS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        probe,
        make_file_system,
        check,
        mount,
        bind,
        unmount,
        grow,
        grow_unmounted,
        may_grow_ext4,
        trim,
        trim_step,
        usage,
        look,
        canonical,
        make_directory,
        make_file,
        remove,
        mounts,
        backing_file,
    )
}
