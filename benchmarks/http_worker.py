"""HTTP clients of a benchmark in a process of their own: keep-alive connections, one request each on its way.

Bare sockets in one loop, because whatever the clients cost is taken from what two cores have for the server.
Prints one JSON line: requests and items counted between two moments of the shared monotonic clock, CPU
seconds of this process in between, and latencies of every call.
"""

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from querator.api.http.json_codec import encode_json
from querator.api.http.messages import (
    Message,
    QueueCompleteRequest,
    QueueLeaseRequest,
    QueueProduceItem,
    QueueProduceRequest,
)
from querator.api.http.proto_codec import encode_protobuf

QUEUE = "bench"
PAYLOAD = b"x" * 100
TEXT = PAYLOAD.decode()
TIMEOUT = "10s"
CALLS = ("produce", "lease", "complete")
Encode = Callable[[Message], bytes]


def request(path: str, body: bytes, content_type: str) -> bytes:
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Dialogue:
    """One connection: what it asks next, and what was answered."""

    def __init__(self, sock: socket.socket, number: int, options: argparse.Namespace) -> None:
        self.sock = sock
        self.call = 0
        self.began = 0.0
        self.answer = b""
        self._is_cycle = options.side == "cycle"
        self._encode: Encode = encode_protobuf if options.protobuf else encode_json
        self._type = "application/protobuf" if options.protobuf else "application/json"
        item = QueueProduceItem(bytes=PAYLOAD) if options.protobuf else QueueProduceItem(utf8=TEXT)
        self._produce = self._request(
            "queue.produce", QueueProduceRequest(QUEUE, TIMEOUT, [item] * options.batch)
        )
        self._lease = self._request("queue.lease", QueueLeaseRequest(QUEUE, 1, f"client-{number}", TIMEOUT))

    def ask(self) -> None:
        self.began = time.monotonic()
        self.sock.sendall(self._next())

    def _next(self) -> bytes:
        if self.call == 0:
            return self._produce
        if self.call == 1:
            return self._lease
        leased = self.answer.partition(b'"id":"')[2].partition(b'"')[0].decode()
        complete = QueueCompleteRequest(queue_name=QUEUE, request_timeout=TIMEOUT, ids=[leased])
        return self._request("queue.complete", complete)

    def _request(self, path: str, message: Message) -> bytes:
        return request(path, self._encode(message), self._type)

    def read(self) -> bool:
        """Whether the answer is whole. Answers are small: one read has most of them."""
        data = self.sock.recv(65_536)
        if not data:
            raise RuntimeError("the server closed a connection")
        self.answer = data if not self.answer else self.answer + data
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return False
        length = int(head.rpartition(b"Content-Length: ")[2])
        if len(body) < length:
            return False
        if not self.answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"refused: {self.answer!r}")
        return True

    def turn(self) -> None:
        """The answer was read; ask what follows."""
        if self._is_cycle:
            self.call = (self.call + 1) % len(CALLS)
        self.ask()
        self.answer = b""


def run(options: argparse.Namespace) -> dict[str, Any]:
    host, _, port = options.address.rpartition(":")
    poll = select.epoll()
    dialogues: dict[int, Dialogue] = {}
    for number in range(options.clients):
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialogues[sock.fileno()] = Dialogue(sock, number, options)
        poll.register(sock, select.EPOLLIN)
    counted: dict[str, list[float]] = {call: [] for call in CALLS}
    began = cpu = 0.0
    for dialogue in dialogues.values():
        dialogue.ask()
    answered = 0
    while (now := time.monotonic()) < options.stop and (not options.requests or answered < options.requests):
        if not began and now >= options.start:
            began, cpu = now, time.process_time()
        for number, _ in poll.poll(0.1):
            dialogue = dialogues[number]
            if not dialogue.read():
                continue
            answered += 1
            if began:
                counted[CALLS[dialogue.call]].append(time.monotonic() - dialogue.began)
            dialogue.turn()
    for dialogue in dialogues.values():
        dialogue.sock.close()
    poll.close()
    return {
        "requests": sum(len(latencies) for latencies in counted.values()),
        "items": len(counted["produce"]) * options.batch,
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "latencies": [round(value * 1e6) for latencies in counted.values() for value in latencies],
    }


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("cycle", "produce"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1, help="items of a produce")
    parser.add_argument("--protobuf", action="store_true", help="as Go clients: protobuf in, JSON out")
    parser.add_argument("--requests", type=int, default=0, help="stop after so many; 0: at --stop")
    parser.add_argument("--start", type=float, required=True)
    parser.add_argument("--stop", type=float, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(run(read_options(sys.argv[1:]))), flush=True)
