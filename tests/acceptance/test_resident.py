"""The memory that a benchmark says is that of all its processes together."""

import os
import subprocess
import sys

from benchmarks.processes import resident_bytes
from benchmarks.resident import Resident
from tests.blackbox.processes import until

MIB = 1 << 20
HOLD = "import sys; held = bytearray(b'x' * (int(sys.argv[1]) << 20)); print('held', flush=True); input()"


async def test_a_child_counts_while_it_lives() -> None:
    before = resident_bytes(os.getpid())
    with Resident() as resident:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, "64"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            await until("the child is counted", lambda: resident.most >= before + 64 * MIB)
        finally:
            child.communicate(b"\n")
    assert resident.processes >= 2
