"""The harness itself: its proxy does what it says, and its judge sees what it is there for."""

from pathlib import Path

import pytest
import trio

from simulations.checkers.history import History, Item, Step
from simulations.ledger import read_entries
from tests.blackbox.judge import _completed_twice, _lost
from tests.blackbox.ledger import Row, record, table
from tests.blackbox.proxy import Proxy, Weather
from tests.blackbox.record import Recorder, Tail, read_account


@pytest.fixture
async def proxy(nursery: trio.Nursery) -> Proxy:
    """In front of a server that says everything again."""

    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                async for data in stream:
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, echo, [listener])
    made = Proxy(listener.socket.getsockname()[1])
    await nursery.start(made.run)
    return made


async def receive(stream: trio.SocketStream, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = await stream.receive_some()
        if not data:
            break
        found += data
    return found


async def test_crumbs_lose_nothing(proxy: Proxy) -> None:
    proxy.change(Weather(crumbs=True))
    sent = bytes(range(256)) * 40
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        await stream.send_all(sent)
        assert await receive(stream, len(sent)) == sent


async def test_what_stands_still_arrives_afterwards(proxy: Proxy) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        proxy.change(Weather(stands_still=True))
        await stream.send_all(b"late")
        while not proxy.held_up:
            await trio.sleep(0.001)
        proxy.clear()
        assert await receive(stream, 4) == b"late"
        assert proxy.held_up == 0


async def test_a_connection_that_lost_bytes_never_delivers_again_and_ends(proxy: Proxy) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        await stream.send_all(b"one")
        assert await receive(stream, 3) == b"one"
        proxy.change(Weather(swallows_down=True))
        await stream.send_all(b"two")
        while not proxy.holes:
            await trio.sleep(0.001)
        proxy.clear()
        with pytest.raises(trio.BrokenResourceError):
            await receive(stream, 3)


async def test_a_cut_is_a_reset(proxy: Proxy) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
        await stream.send_all(b"one")
        assert await receive(stream, 3) == b"one"
        assert proxy.cut() == 1
        with pytest.raises(trio.BrokenResourceError):
            await receive(stream, 3)


def write_history(path: Path) -> None:
    """Two items acknowledged, a call without an answer, and one item whose completion two holders saw."""
    record = Recorder(path, "k0")
    call = record.call("produce", queue="work", items=["a", "b"])
    record.end(call, "ok", partition=1, numbers=[1, 2], duplicates=0)
    record.call("produce", queue="work", items=["c"])
    for reservation in (7, 8):
        call = record.call("complete", reservation=[1, 99, reservation], items=[1])
        record.end(call, "ok")
    with path.open("ab") as file:
        file.write(b'{"at": 1, "cut sho')


def test_a_history_is_read_as_it_was_written_though_its_last_line_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "history"
    write_history(path)
    account = read_account(path)
    assert account.seen.productions[0].payloads == (b"a", b"b")
    assert list(account.seen.attempted) == [b"a", b"b", b"c"]
    assert account.unknown == 1
    tail = Tail(path)
    tail.look()
    assert (tail.acknowledged, tail.completed, tail.producing(["k0"])) == (2, 2, 1)


def test_the_judge_sees_what_is_lost_and_what_is_completed_twice(tmp_path: Path) -> None:
    path = tmp_path / "history"
    write_history(path)
    account = read_account(path)
    history = History(1, keyed=False)
    history.items[1] = Item(1, b"a", "", 0)
    assert _lost(account, {1: history}) == [b"b"]
    assert _completed_twice(account, {1: history}) == ["1.1, confirmed to the holders of [7, 8]"]
    account.completions.clear()
    assert _completed_twice(account, {1: history}) == []
    history.steps += [Step(position, 0, 0, "completed", 1, "reserved", "completed") for position in (3, 4)]
    assert _completed_twice(account, {1: history}) == ["b'a'"]


def test_the_ledger_adds_up_by_kind() -> None:
    row = Row(
        fault="cut", times=2, acknowledged=30, completed=30, unknown=1, lost=0, twice=0, stale_refused=4
    )
    head, line = table([row, row]).splitlines()
    assert head.split()[:3] == ["fault", "times", "acknowledged"]
    assert line.split() == ["cut", "4", "60", "60", "2", "0", "0", "8"]


def test_what_was_recorded_is_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kills among the faults, which the page adds up."""
    monkeypatch.setattr("tests.blackbox.ledger.PROCESSES", tmp_path / "ledger.jsonl")
    rows = [
        Row(fault=fault, times=3, acknowledged=10, completed=10, unknown=1, lost=0, twice=0, stale_refused=0)
        for fault in ("server killed", "client paused", "server killed", "immediate stop")
    ]
    record(rows, "a run", seconds=61.2, runs=4, violations=0)
    (entry,) = read_entries(tmp_path / "ledger.jsonl")
    assert (entry["kills"], entry["acknowledged"], entry["seconds"]) == (9, 40, 61)
    assert entry["faults"] == {"server killed": 6, "client paused": 3, "immediate stop": 3}
