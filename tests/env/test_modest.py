"""Processes that nobody else feels: in a session of their own all of it is unimportant, else themselves."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from querator.env import modest
from querator.env.real import real_env
from tests.env import standing

linux = pytest.mark.skipif(sys.platform != "linux", reason="its policies and sessions are Linux's")
SESSION = Path("/proc/self/autogroup")


async def told_by_a_child(*, is_modest: bool) -> Any:
    told = b""
    async with real_env().processes.run(standing.__name__, is_modest=is_modest) as stream:
        while not told.endswith(b"\n"):
            told += await stream.receive_some()
    return json.loads(told)


@linux
async def test_a_modest_process_takes_what_others_leave() -> None:
    told = await told_by_a_child(is_modest=True)
    assert (told["nice"], told["policy"]) == (19, os.SCHED_IDLE)
    if SESSION.exists():
        assert told["session"].endswith("nice 19")


@linux
async def test_any_other_is_as_we_are() -> None:
    told = await told_by_a_child(is_modest=False)
    assert (told["nice"], told["policy"]) == (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
    assert not told["session"].endswith("nice 19")


@linux
async def test_who_is_modest_has_modest_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modest, "is_modest", lambda: True)
    assert (await told_by_a_child(is_modest=False))["policy"] == os.SCHED_IDLE


@linux
def test_a_session_that_it_shares_is_left_alone() -> None:
    done = subprocess.run(
        [sys.executable, modest.__file__, standing.__name__], stdout=subprocess.PIPE, check=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert told["policy"] == os.SCHED_IDLE
    if SESSION.exists():
        assert told["session"] == SESSION.read_text().strip()


@linux
def test_a_kernel_without_sessions_or_slices_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(modest, "_AUTOGROUP", tmp_path / "absent" / "autogroup")
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(os, "nice", lambda by: calls.append(f"nice {by}"))
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")

    def refuse(*_: object) -> None:
        calls.append("refused")
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    modest.be_modest()
    assert calls == ["nice 19", "refused"]


@linux
def test_the_kernel_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [BlockingIOError(11, "again"), BlockingIOError(11, "again"), None]

    class Autogroup:
        def write_text(self, text: str, encoding: str) -> None:
            del encoding
            assert text == "19"
            error = busy.pop(0)
            if error is not None:
                raise error

    monkeypatch.setattr(modest, "_AUTOGROUP", Autogroup())
    monkeypatch.setattr(modest, "_PAUSE", 0.0)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    modest._leave_the_session_to_others()
    assert not busy
