"""The agent's parts that need no kernel: records, descriptors handed over, settings, the holder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curve_py.config import load_settings
from curve_py.errors import ConfigError
from node_agent import handover, holder
from node_agent.records import Record, Records
from node_agent.settings import AgentSettings

RECORD = Record(7, "data", "9f2c", "fuse", 3, False, True, 11, 12, 13)


def test_records_are_found_again(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.make()
    records.save(RECORD, "/dev/loop3")
    other = Record(2, "b", "aaaa", "fuse", 4, True, False, 1, 1, 1)
    records.save(other, "/dev/loop4")
    records.save(other, "/dev/loop5")  # again
    assert Records(tmp_path).load() == [other, RECORD]
    assert os.readlink(records.link("9f2c")) == "/dev/loop3"
    assert os.readlink(records.link("aaaa")) == "/dev/loop5"
    records.remove("9f2c")
    records.remove("9f2c")
    assert records.load() == [other]
    assert not os.path.lexists(records.link("9f2c"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"volume_id": 1}', '{"more": 1}'])
def test_a_damaged_record_hides_no_other(tmp_path: Path, content: str) -> None:
    records = Records(tmp_path)
    records.make()
    records.save(RECORD, "/dev/loop3")
    (tmp_path / "records" / "0000.json").write_text(content)
    assert records.load() == [RECORD]
    assert (tmp_path / "records" / "0000.json").exists()


def test_descriptors_go_to_the_holder_and_back() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    worker = handover.Holder(theirs)
    worker.put("a", write)
    os.close(write)  # the worker is killed
    message = handover.receive(ours)
    assert message is not None
    assert message[0] == {"is": "put", "key": "a"}
    handover.send(ours, {"is": "held", "key": "a"}, message[1])
    handover.send(ours, {"is": "end"})
    kept = worker.held()
    assert handover.receive(ours) == ({"is": "get"}, -1)
    os.write(kept["a"], b"x")
    assert os.read(read, 1) == b"x"
    ours.close()
    worker.put("b", read)  # nobody is there: no error
    assert not worker.is_there
    for descriptor in (read, kept["a"], message[1]):
        os.close(descriptor)


WORKER = """
import os, sys, time
from node_agent.handover import Holder
holder = Holder.inherited()
held = holder.held()
with open(sys.argv[1], "a") as log:
    print(os.getpid(), *(os.fstat(fd).st_ino for fd in held.values()), file=log)
if not held:
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    holder.put("key", descriptor)
holder.serving()
while True:
    time.sleep(1)
"""


def lines(path: Path, count: int) -> list[list[int]]:
    deadline = time.monotonic() + 30
    while True:
        found = [list(map(int, line.split())) for line in path.read_text().splitlines()]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_is_killed_has_a_successor_with_its_descriptors(tmp_path: Path) -> None:
    (tmp_path / "fake_worker.py").write_text(WORKER)
    log = tmp_path / "log"
    log.write_text("")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from node_agent import holder; "
        f"holder.WORKER_MODULE = 'fake_worker'; sys.exit(holder.Supervisor([{str(log)!r}]).run())"
    )
    # Where the worker's module is found.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    running = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        (first,) = lines(log, 1)
        assert len(first) == 1
        os.kill(first[0], signal.SIGKILL)
        second = lines(log, 2)[1]
        assert second[1:] == [log.stat().st_ino]
        running.send_signal(signal.SIGHUP)
        third = lines(log, 3)[2]
        assert third[0] != second[0]
        assert third[1:] == [log.stat().st_ino]
        running.terminate()
        assert running.wait(30) == 0
        assert not Path(f"/proc/{third[0]}").exists()
    finally:
        running.kill()
        running.wait()


def test_a_worker_that_never_served_ends_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "WORKER_MODULE", "node_agent.no_such_module")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert holder.Supervisor([]).run() == 1
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_settings(tmp_path: Path) -> None:
    options = ["--secret-file", "s", "--directory", str(tmp_path), "--metaservers", "a:1"]
    settings = load_settings(AgentSettings, "curve-agent", "", options)
    assert settings.control_socket == tmp_path / "agent.sock"
    assert settings.node_id
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        load_settings(AgentSettings, "curve-agent", "", [*options, "--directory", "/" + "x" * 110])


def test_what_memory_may_not_be_locked_or_spared_is_said() -> None:
    script = """
from pathlib import Path
from curve_py.service import memory
missing = " ".join(memory.prepare())
locked = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmLck")]
assert ("cannot be locked" in missing) != (int(locked[0].split()[1]) > 0), (missing, locked)
spared = Path("/proc/self/oom_score_adj").read_text().strip() == "-999"
assert ("does not spare" in missing) != spared, missing
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
