"""What `curve task list`, `curve chunkserver`, `curve scrub` and `curve volume check` say, and whom
they mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curve_py.cli.chunkserver import find
from curve_py.cli.main import main
from curve_py.cli.task import list_tasks
from curve_py.cli.task.words import format_seconds, progress_sentence, task_sentence
from curve_py.client import Cluster
from curve_py.client.directory import ClusterDirectory, Description, LocalChunkserver
from curve_py.client.records import chunkserver_info, task_list
from curve_py.errors import InvalidError, NotFoundError
from curve_py.proto import meta_pb2 as pb

STORES = [b"\xab" * 16, b"\xab" * 15 + b"\xcd", b"\x01" * 16]


def tasks_message(**progress: Any) -> pb.ListTasksResponse:
    running = pb.Task(
        id=7,
        copyset_id=1 << 32 | 5,
        source=STORES[0],
        target=STORES[1],
        source_address="10.0.0.1:1",
        target_address="10.0.0.2:1",
        reason=pb.MOVE_REASON_REPLACE,
        why="chunkserver 10.0.0.1:1 is gone",
        step=pb.MOVE_STEP_REMOVE,
        size_bytes=10 << 20,
        done_bytes=10 << 20,
        started_at_ms=1000,
        waits_for="leadership is handed over",
    )
    ended = pb.Task(
        id=6,
        copyset_id=1 << 32 | 4,
        source_address="10.0.0.1:1",
        target_address="10.0.0.3:1",
        reason=pb.MOVE_REASON_REPLACE,
        size_bytes=3 << 20,
        done_bytes=3 << 20,
        started_at_ms=1000,
        ended_at_ms=3500,
    )
    return pb.ListTasksResponse(
        running=[running],
        ended=[ended],
        passes=[pb.SchedulerPass(at_ms=900, decisions=["copyset 1.4: it goes."], notes=["Stuck."])],
        progress=pb.RecoveryProgress(running=1, notes=["Stuck."], **progress),
    )


def chunkserver(number: int, **fields: Any) -> pb.Chunkserver:
    fields.setdefault("state", pb.CHUNKSERVER_STATE_UP)
    return pb.Chunkserver(store_id=STORES[number], data_address=f"10.0.0.{number + 1}:1", **fields)


class FakeMeta:
    """Answers calls of MetaService."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    def call(self, method: str, request: Any, seconds: float = 0) -> Any:
        self.asked.append((method, request))
        return self.answers[method]

    def close(self) -> None: ...


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMeta:
    fake = FakeMeta(
        {
            "ListTasks": tasks_message(),
            "ListChunkservers": pb.ListChunkserversResponse(
                chunkservers=[chunkserver(n) for n in range(3)]
            ),
            "DrainChunkserver": chunkserver(
                2, life=pb.CHUNKSERVER_LIFE_DRAINING, assigned_count=48
            ),
        }
    )

    def connect(*_: Any, **__: Any) -> Cluster:
        cluster = Cluster(["127.0.0.1:1"], b"s" * 32)
        cluster._client = fake  # type: ignore[assignment]
        return cluster

    monkeypatch.setattr(Cluster, "connect", connect)
    monkeypatch.setenv("CURVE_DIR", str(tmp_path))
    return fake


def test_tasks_are_listed_with_their_reasons(
    meta: FakeMeta, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_tasks, "_clock", lambda at_ms: f"at {at_ms}")
    assert main(["task", "list"]) == 0
    printed = capsys.readouterr().out
    assert "chunkserver 10.0.0.1:1 is gone (waits: leadership is handed over)" in printed
    assert printed.splitlines()[-4:] == [
        "now        1 replicas move, 0 wait, time left not known yet",
        "waits      Stuck.",
        "at 3500   copyset 1.4: 10.0.0.1:1 to 10.0.0.3:1 done, 3 MiB in 2.5 s",
        "at 900   decided: copyset 1.4: it goes.",
    ]


def test_tasks_as_json(meta: FakeMeta, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task", "list", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["running"][0]["copyset"] == "1.5"
    assert answer["running"][0]["step"] == "remove"
    assert answer["running"][0]["seconds_left"] is None
    assert answer["ended"][0]["step"] == "done"
    assert answer["progress"]["notes"] == ["Stuck."]


def test_following_tells_what_is_new() -> None:
    first = task_list(tasks_message())
    lines = list(list_tasks._news(None, first))
    assert len(lines) == 4
    assert list(list_tasks._news(first, first)) == []
    message = tasks_message(left_bytes=1 << 30, bytes_per_second=50 << 20, seconds_left=21)
    message.passes.add(at_ms=5000, decisions=["another"])
    message.ended.add(
        id=9,
        copyset_id=1 << 32,
        source_address="a",
        target_address="b",
        ended_at_ms=6000,
        cancelled="it has come back",
        step=pb.MOVE_STEP_CANCEL,
        reason=pb.MOVE_REASON_REPLACE,
    )
    lines = [line.split("   ", 1)[1] for line in list_tasks._news(first, task_list(message))]
    assert [line.strip() for line in lines] == [
        "decided: another",
        "copyset 1.0: a to b given up: it has come back",
        "1 replicas move, 0 wait, 1 GiB to go at 50 MiB/s, about 21 s left",
    ]


def test_times_and_sentences() -> None:
    assert [format_seconds(s) for s in (None, 0, 119, 120, 7199, 7200)] == [
        "?",
        "0 s",
        "119 s",
        "2 min",
        "120 min",
        "2.0 h",
    ]
    idle = task_list(pb.ListTasksResponse())
    assert progress_sentence(idle.progress) == "no replica moves"
    assert "done" in task_sentence(task_list(tasks_message()).ended[0])


def test_a_drain_is_told(meta: FakeMeta, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chunkserver", "drain", "10.0.0.3:1"]) == 0
    assert capsys.readouterr().out == (
        "48 replicas move away from chunkserver 10.0.0.3:1; see how far it is with: curve task "
        "list --follow\n"
    )
    method, request = meta.asked[-1]
    assert (method, request.store_id, request.undrain) == ("DrainChunkserver", STORES[2], False)
    assert main(["chunkserver", "undrain", "01010101"]) == 0
    assert meta.asked[-1][1].undrain


def test_whoever_is_meant(meta: FakeMeta, tmp_path: Path) -> None:
    directory = ClusterDirectory(tmp_path)
    cluster = Cluster.connect()
    described = Description("c" * 8, "curve")
    described.chunkservers.append(LocalChunkserver("chunkserver-9", "10.0.0.2:1", "", "", 1))
    directory.save(described)

    def found(text: str) -> str:
        return find.find_chunkserver(cluster, directory, text).data_address

    assert found("chunkserver-9") == found("10.0.0.2:1") == "10.0.0.2:1"
    assert found("0101") == "10.0.0.3:1"
    assert found("abababab-abab-abab-abab-abababababcd") == "10.0.0.2:1"
    with pytest.raises(InvalidError, match="beginning of 2"):
        found("abab")
    for text in ("010", "ffff", "chunkserver-1"):
        with pytest.raises(NotFoundError, match="There is no chunkserver"):
            found(text)


@pytest.mark.parametrize(
    ("state", "life", "assigned", "expected"),
    [
        (pb.CHUNKSERVER_STATE_UP, pb.CHUNKSERVER_LIFE_IN_SERVICE, 4, "up"),
        (pb.CHUNKSERVER_STATE_UP, pb.CHUNKSERVER_LIFE_DRAINING, 4, "draining"),
        (pb.CHUNKSERVER_STATE_UP, pb.CHUNKSERVER_LIFE_DRAINING, 0, "drained"),
        (pb.CHUNKSERVER_STATE_GONE, pb.CHUNKSERVER_LIFE_DRAINING, 4, "gone, draining"),
        (pb.CHUNKSERVER_STATE_FAILED, pb.CHUNKSERVER_LIFE_IN_SERVICE, 4, "failed"),
        (pb.CHUNKSERVER_STATE_DOWN, pb.CHUNKSERVER_LIFE_REMOVED, 0, "removed"),
    ],
)
def test_state_and_life_in_words(state: Any, life: Any, assigned: int, expected: str) -> None:
    message = chunkserver(0, state=state, life=life, assigned_count=assigned)
    assert chunkserver_info(message).condition == expected


def test_scrub_names_those_that_do_not_answer(
    meta: FakeMeta, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = pb.ScrubStoresResponse()
    answer.stores.add(store_id=STORES[0], running=True, blocks_done=3, blocks_total=7)
    answer.unreachable.add(
        store_id=STORES[2], data_address="10.0.0.3:1", message="a:1 cannot be reached: Refused."
    )
    meta.answers["ScrubStores"] = answer
    assert main(["scrub", "status"]) == 0
    printed = capsys.readouterr()
    assert "3 of 7 blocks" in printed.out
    assert printed.err == (
        "Store 01010101-0101-0101-0101-010101010101 (10.0.0.3:1): a:1 cannot be reached: Refused.\n"
    )
    assert main(["scrub", "start", "--rate", "1M", "--store", "0101", "--json"]) == 1
    _, request = meta.asked[-1]
    assert list(request.store_ids) == [STORES[2]]
    assert (request.start, request.bytes_per_second) == (True, 1 << 20)
    told = json.loads(capsys.readouterr().out)
    assert [each["message"] for each in told["unreachable"]] == ["a:1 cannot be reached: Refused."]
    assert [each["running"] for each in told["stores"]] == [True]


def test_a_copyset_that_could_not_be_checked_is_no_agreement(
    meta: FakeMeta, capsys: pytest.CaptureFixture[str]
) -> None:
    copysets = [pb.Copyset(id=1 << 32 | n) for n in range(2)]
    meta.answers |= {
        "GetVolume": pb.Volume(pool_id=1),
        "ListCopysets": pb.ListCopysetsResponse(copysets=copysets),
        "CheckCopyset": pb.CopysetCheck(chunks=4),
    }
    assert main(["volume", "check", "v"]) == 0
    assert capsys.readouterr().out == "All replicas of v agree: 8 chunks were read.\n"
    meta.answers["CheckCopyset"] = pb.CopysetCheck(error="It cannot be checked: nobody leads it.")
    assert main(["volume", "check", "v"]) == 3
    assert "Copyset 1.1: It cannot be checked: nobody leads it." in capsys.readouterr().err
    assert main(["volume", "check", "v", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["copysets"], told["differences"], len(told["unchecked"])) == (0, [], 2)
