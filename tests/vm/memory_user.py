"""Another user of memory in the guest: takes as much as it is told (MiB), again and again.

What it takes is not locked and it is the first that the out-of-memory killer ends (whoever started
it starts it again), so that memory is short all the time and nothing else has to go.
"""

import os
import sys
import time
from pathlib import Path

Path("/proc/self/oom_score_adj").write_text("1000\n")
Path("/proc/self/comm").write_text("memory-user")
while True:
    held: list[bytearray] = []
    for _ in range(int(sys.argv[1])):
        held.append(bytearray(os.urandom(4096) * 256))
        time.sleep(0.01)
