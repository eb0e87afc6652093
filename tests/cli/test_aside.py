"""Commands that run in a modest process: what is typed, printed and signalled is as if there were none."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from querator.cli import aside
from tests.cli import stand_in
from tests.cli.conftest import children_of, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="its policies and sessions are Linux's")
ROOT = Path(aside.__file__).parents[2]
SECONDS_MAX = 60
RUN = f"""
import signal, sys
# What a shell runs in the background does not hear it: perhaps these tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
from querator.cli import aside
aside._CHILD = {stand_in.__name__!r}
{{first}}
sys.exit(aside.run_aside(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("analytics refresh --data x", True),
        ("analytics report mail", True),
        ("analytics report mail --no-modest", False),
        ("analytics ask waiting mail", False),
        ("analytics", False),
        ("analytics --help", False),
        ("produce sql", False),
        ("", False),
    ],
)
def test_history_is_read_aside_and_servers_are_asked_at_once(line: str, *, expected: bool) -> None:
    assert aside.is_modest(line.split()) is expected


@contextmanager
def begin(seconds: float, *, first: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """Run the stand-in for a command aside, in the working directory, for no longer than the block."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN.format(first=first), str(seconds)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@linux
def test_it_has_what_others_leave_and_its_end_is_ours() -> None:
    with begin(0) as process:
        out, error = process.communicate()
    told = json.loads(out)
    assert (told["nice"], told["policy"]) == (19, os.SCHED_IDLE)
    assert told["session"] == "" or told["session"].endswith("nice 19")
    assert (process.returncode, error) == (65, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_signals_are_passed_on(number: signal.Signals, code: int) -> None:
    with begin(1_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(SECONDS_MAX) == code


@linux
def test_killed_it_leaves_nothing_that_works_on() -> None:
    with begin(1_000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = children_of(process.pid)
        process.kill()
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child was gone")


@pytest.mark.parametrize(("first", "code"), [("sys.path.remove('')", 65), ("", 1)])
def test_who_does_not_import_from_the_working_directory_has_no_child_that_does(first: str, code: int) -> None:
    # The working directory is the test's own.
    Path("json.py").write_text("raise ImportError('not this one')\n")
    with begin(0, first=first) as process:
        process.communicate()
    assert process.returncode == code
