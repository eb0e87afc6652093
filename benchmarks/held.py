"""What holding items costs: memory, the time of a restart, idle subscriptions, pauses of the event loop.

The judging measurements that are not rates. Each starts servers of its own, and says which target
it is held to.
"""

import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from benchmarks.processes import Server, server, start_server, start_worker
from querator.client import connect
from querator.core.limits import WINDOW_ITEMS_MAX
from tests.ports import free_port

QUEUE = "bench"
PAYLOAD = b"x" * 100
_BATCH = 1_000
_OUTSTANDING = 20_000
MIB = 1 << 20
_RECORDS = 'querator_log_records_total{store="sqlite"}'


async def _fill(address: str, items: int) -> None:
    async with connect(address, client="bench-fill") as client:
        payloads = [PAYLOAD] * _BATCH
        for _ in range(items // _BATCH):
            client.produce_nowait(QUEUE, payloads)
            if client.outstanding >= _OUTSTANDING:
                await client.flush(_OUTSTANDING // 2)
        await client.flush()


def fill(running: Server, items: int) -> float:
    """Produce so many items; the seconds it took."""
    began = time.monotonic()
    trio.run(_fill, running.address, items)
    return time.monotonic() - began


@contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="querator-bench-") as directory:
        yield Path(directory) / "data"


def metric(address: str, name: str) -> float:
    """One number of ``/metrics``; 0 when it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", http_get(address, "/metrics"), re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def http_get(address: str, path: str) -> str:
    """The whole answer to a GET, head included."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        pieces = []
        while piece := stream.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces).decode()


# --- memory -------------------------------------------------------------------------------------------


def footprint(items: int, budget: int) -> dict[str, Any]:
    """Resident memory with ``items`` waiting, and its growth an item once payloads stay in the log.

    ``budget``: bytes of payloads that the server keeps in memory.
    """
    with server("--payload-memory", str(budget)) as running:
        empty = running.resident()
        half = items // 2
        seconds = fill(running, half)
        _settle()
        at_half = running.resident()
        seconds += fill(running, items - half)
        _settle()
        full = running.resident()
        kept = metric(running.address, "querator_payload_bytes")
    return {
        "items": items,
        "seconds": seconds,
        "empty_mib": empty / MIB,
        "resident_mib": full / MIB,
        "payloads_in_memory_mib": kept / MIB,
        "growth_bytes_an_item": (full - at_half) / (items - half),
        "is_past_budget": half * len(PAYLOAD) > budget,
    }


def _settle() -> None:
    """Let the server do its housekeeping: payloads over the budget leave memory."""
    time.sleep(1.5)


# --- restart ------------------------------------------------------------------------------------------


def restart(items: int) -> dict[str, Any]:
    """Seconds from the start of the process to a healthy answer, and to the first reservation pushed."""
    figures: dict[str, Any] = {"items": items}
    with _place() as data:
        port = free_port()
        running = start_server(data, port)
        try:
            trio.run(_create, running.address)
            fill(running, items)
            _kill(running)
            running, figures["after_killed_without_snapshot"] = _start(data, port)
            running.stop()
            running, figures["after_stopped"] = _start(data, port)
            # A log that was not closed, with fresh records behind the snapshot.
            fill(running, max(_BATCH, items // 10))
            _kill(running)
            running, figures["after_killed"] = _start(data, port)
        finally:
            running.stop()
    return figures


def _kill(running: Server) -> None:
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()


def _start(data: Path, port: int) -> tuple[Server, dict[str, float]]:
    began = time.monotonic()
    running = start_server(data, port)
    healthy = time.monotonic() - began
    trio.run(_first, running.address)
    return running, {"healthy": healthy, "first_push": time.monotonic() - began}


async def _create(address: str) -> None:
    async with connect(address, client="bench") as client:
        await client.call("queues.create", {"name": QUEUE})


async def _first(address: str) -> None:
    async with connect(address, client="bench") as client, client.consume(QUEUE, window=1) as items:
        async for item in items:
            await item.release()
            return


# --- idleness -----------------------------------------------------------------------------------------


def idle(sessions: int, each: int, seconds: float) -> dict[str, Any]:
    """CPU of a server whose subscriptions wait in vain, in percent of a core; and what it logged."""
    with server("--ping-interval", "15s") as running:
        worker = start_worker("wait", address=running.address, clients=sessions, batch=each)
        try:
            _wait_until(lambda: metric(running.address, "querator_api_subscriptions") >= sessions * each, 120)
            time.sleep(2.0)
            before = running.cpu(), metric(running.address, _RECORDS)
            began = time.monotonic()
            time.sleep(seconds)
            spent = running.cpu() - before[0]
            elapsed = time.monotonic() - began
            rows = metric(running.address, _RECORDS) - before[1]
            resident = running.resident()
        finally:
            worker.terminate()
            worker.wait(30)
    return {
        "sessions": sessions,
        "subscriptions": sessions * each,
        "seconds": elapsed,
        "cpu_percent": 100 * spent / elapsed,
        "log_records": int(rows),
        "resident_mib": resident / MIB,
    }


def _wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the benchmark's clients did not get ready in time")
        time.sleep(0.25)


# --- pauses -------------------------------------------------------------------------------------------


def pause(items: int, seconds: float) -> dict[str, Any]:
    """The longest pause of the server's event loop, filling and under load with ``items`` held."""
    with server() as running:
        fill(running, items)
        filling = _longest(running)
        holder = start_worker(
            "hold",
            address=running.address,
            clients=max(1, items // 2 // WINDOW_ITEMS_MAX),
            batch=_BATCH,
            window=WINDOW_ITEMS_MAX,
        )
        try:
            time.sleep(3.0)
            start = time.monotonic() + 1.5
            common: dict[str, object] = {
                "address": running.address,
                "clients": 4,
                "batch": 100,
                "window": 3_200,
                "start": start,
                "stop": start + seconds,
            }
            workers = [start_worker(side, **common) for side in ("consume", "produce")]
            for worker in workers:
                worker.communicate(timeout=seconds + 60)
            reserved = metric(running.address, f'querator_queue_depth{{queue="{QUEUE}",state="reserved"}}')
            ready = metric(running.address, f'querator_queue_depth{{queue="{QUEUE}",state="ready"}}')
            loaded = _longest(running)
            snapshots = metric(running.address, "querator_snapshots_total")
        finally:
            holder.terminate()
            holder.wait(30)
    return {
        "items": items,
        "reserved": int(reserved),
        "ready": int(ready),
        "snapshots": int(snapshots),
        "longest_ms_filling": filling,
        "longest_ms": loaded,
    }


def _longest(running: Server) -> float:
    return metric(running.address, "querator_loop_pause_seconds_max") * 1_000
