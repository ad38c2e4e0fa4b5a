"""A client of its own: reads and writes sectors of a volume until told to end, and records it all.

    python load_client.py CLUSTER_DIR VOLUME MODE CLIENT HISTORY

MODE is shared or exclusive. The first SHARED_SLOTS slots are written by every client, the others
only by their own; all are read. Every operation that ended is one line of the file HISTORY: kind,
slot, value, begin, end (CLOCK_MONOTONIC, ns), error. Ends when standard input does, after the last
I/O. Prints "attached" once it is. Threads: writers and readers at depth 1 each, one client.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

from curve_py.client import AttachMode, Cluster, Volume
from curve_py.errors import CurveError

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH

from history import SECTOR_BYTES, content, value_of

SHARED_SLOTS, OWN_SLOTS, CLIENTS_MAX = 32, 64, 4
SLOTS = SHARED_SLOTS + OWN_SLOTS * CLIENTS_MAX
WRITERS, READERS = 2, 2


class Load:
    """One client's I/O."""

    def __init__(self, volume: Volume, client: int, history: TextIO) -> None:
        self._volume, self._client, self._history = volume, client, history
        self._step = volume.size // SLOTS // SECTOR_BYTES * SECTOR_BYTES
        self._lock = threading.Lock()
        self._sequence = 0
        self.ended = threading.Event()

    def _record(self, kind: str, slot: int, value: int, begin: int, error: str = "-") -> None:
        line = f"{kind} {slot} {value} {begin} {time.monotonic_ns()} {error}\n"
        with self._lock:
            self._history.write(line)
            self._history.flush()

    def write(self, number: int) -> None:
        choice = random.Random(self._client * 100 + number)
        first = SHARED_SLOTS + self._client * OWN_SLOTS + number * (OWN_SLOTS // WRITERS)
        while not self.ended.is_set():
            slot = first + choice.randrange(OWN_SLOTS // WRITERS)
            if choice.random() < 0.4:
                slot = choice.randrange(SHARED_SLOTS)
            with self._lock:
                self._sequence += 1
                value = (self._client + 1) << 40 | self._sequence
            begin = time.monotonic_ns()
            try:
                self._volume.write(slot * self._step, content(slot, value))
            except CurveError as error:
                self._record("w", slot, value, begin, error.kind)
                return
            self._record("w", slot, value, begin)

    def read(self, number: int) -> None:
        choice = random.Random(self._client * 100 + number + 50)
        while not self.ended.is_set():
            slot = choice.randrange(SHARED_SLOTS if choice.random() < 0.5 else SLOTS)
            begin = time.monotonic_ns()
            try:
                data = self._volume.read(slot * self._step, SECTOR_BYTES)
            except CurveError as error:
                self._record("r", slot, 0, begin, error.kind)
                return
            self._record("r", slot, value_of(slot, data), begin)


def main() -> None:
    directory, name, mode, client, history = sys.argv[1:]
    with (
        Cluster.connect(Path(directory)) as cluster,
        open(history, "w") as file,
        cluster.volumes().open(name, AttachMode(mode)) as volume,
    ):
        load = Load(volume, int(client), file)
        threads = [threading.Thread(target=load.write, args=(n,)) for n in range(WRITERS)]
        threads += [threading.Thread(target=load.read, args=(n,)) for n in range(READERS)]
        print("attached", flush=True)
        for thread in threads:
            thread.start()
        sys.stdin.read()
        load.ended.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
