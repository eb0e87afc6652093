"""A client with the habits of the Go one: protobuf out, no ``Accept``, JSON in, parsed strictly.

Its messages are built from the contract's field tables (tests/api/http/contract.py), not from the server's
own generated code.
"""

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlencode

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, timestamp_pb2

from tests.api.http.contract import endpoint_rows, message_rows

CODES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    453: "Request Failed",
    454: "Retry Request",
    455: "Client Content Error",
    500: "Internal Service Error",
    501: "Not Implemented",
    512: "Transport Error",
}
MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
ZERO_TIME = "0001-01-01T00:00:00Z"
PATIENCE = 60.0
"""Seconds for what takes milliseconds on an idle machine."""
PROTOBUF = "application/protobuf"


Kind = Label = descriptor_pb2.FieldDescriptorProto


def _build() -> dict[str, Any]:
    """Message classes by name."""
    kinds = {
        "int32": Kind.TYPE_INT32,
        "string": Kind.TYPE_STRING,
        "bytes": Kind.TYPE_BYTES,
        "bool": Kind.TYPE_BOOL,
    }
    pool = descriptor_pool.DescriptorPool()
    stamps = descriptor_pb2.FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(stamps)
    pool.Add(stamps)
    file = descriptor_pb2.FileDescriptorProto(name="contract.proto", package="contract", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    rows = message_rows()
    for name, fields in rows.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind, repeated, _ in fields:
            field = message.field.add(name=field_name, number=number, json_name=field_name)
            field.label = Label.LABEL_REPEATED if repeated else Label.LABEL_OPTIONAL
            if kind in kinds:
                field.type = kinds[kind]
            elif kind == "ts":
                field.type, field.type_name = Kind.TYPE_MESSAGE, ".google.protobuf.Timestamp"
            elif kind == "map":
                entry = message.nested_type.add(name="DetailsEntry")
                entry.options.map_entry = True
                for place, part in enumerate(("key", "value"), 1):
                    entry.field.add(
                        name=part, number=place, label=Label.LABEL_OPTIONAL, type=Kind.TYPE_STRING
                    )
                field.label, field.type = Label.LABEL_REPEATED, Kind.TYPE_MESSAGE
                field.type_name = f".contract.{name}.DetailsEntry"
            else:
                field.type, field.type_name = Kind.TYPE_MESSAGE, f".contract.{kind}"
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"contract.{name}")) for name in rows
    }


MESSAGES = _build()
CALLS = {path: (request, reply) for path, request, reply, _, _ in endpoint_rows()}


class Refused(Exception):
    """The server answered an error; ``code`` and ``text`` are the reply's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Connections:
    """A kept connection for each thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._local = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def mine(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
            self._local.connection = connection
            self._all.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._all:
            connection.close()


class Control:
    """The conformance host's control port."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.servers: list[Server] = []
        self._connections = Connections(address)

    def close(self) -> None:
        self._connections.close()

    def order(self, path: str, **fields: object) -> dict[str, str]:
        connection = self._connections.mine()
        body = urlencode({name: str(value) for name, value in fields.items()})
        connection.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        answer: dict[str, str] = json.loads(response.read())
        assert response.status == 200, (path, fields, answer)
        return answer

    def new(self, **fields: object) -> "Server":
        """``drain`` is long unless a test says otherwise: who is slow to hear an answer is not cut off."""
        made = self.order("/new", **{"drain": PATIENCE, **fields})
        server = Server(self, made["id"], made["addr"], int(str(fields.get("now", 0))))
        self.servers.append(server)
        return server


class Server:
    """One logical server, and a client of it. Safe from several threads."""

    def __init__(self, control: Control, number: str, address: str, now: int) -> None:
        self.control = control
        self.id = number
        self.address = address
        self.now = now
        """Where its clock stands, in nanoseconds; 0: it runs."""
        self._connections = Connections(address)
        self._pool = ThreadPoolExecutor(64)

    # --- orders -------------------------------------------------------------------------------------

    def advance(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        self.control.order("/clock", id=self.id, now=self.now)

    def pause(self, queue: str, *, on: bool = True) -> None:
        self.control.order("/pause", id=self.id, queue=queue, pause=int(on))

    def stop(self) -> None:
        """And close everything here; a second time changes nothing."""
        if self in self.control.servers:
            self.control.servers.remove(self)
            self.control.order("/stop", id=self.id)
            self._pool.shutdown()
            self._connections.close()

    def bootstrap(self) -> None:
        self.control.order("/bootstrap", id=self.id)

    # --- calls --------------------------------------------------------------------------------------

    def raw(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Any request, on this thread's kept connection."""
        connection = self._connections.mine()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            read = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise
        return response.status, {name.lower(): value for name, value in response.getheaders()}, read

    def call(self, path: str, fields: dict[str, Any], key: str = "") -> Any:
        """The reply as a message.

        Raises:
            Refused: it was an error, of a form that the Go client can read.
        """
        path = f"/v1/{path}"
        request_name, reply_name = CALLS[path]
        body = json_format.ParseDict(fields, MESSAGES[request_name]()).SerializeToString()
        headers = {"Content-Type": "application/protobuf", "Content-Length": str(len(body))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        status, got, read = self.raw("POST", path, body, headers)
        assert got["content-type"] == "application/json"
        assert got["x-content-type-options"] == "nosniff"
        if status == 200:
            return json_format.Parse(read, MESSAGES[reply_name]())
        reply = json_format.Parse(read, MESSAGES["Reply"]())
        assert reply.code == status
        assert reply.code_text == CODES[status]
        assert reply.message
        assert not reply.details
        raise Refused(reply.code, reply.message)

    def json(self, path: str, fields: dict[str, Any]) -> tuple[int, Any]:
        """In JSON both ways: (status, the document as it is)."""
        body = json.dumps(fields).encode()
        status, _, read = self.raw("POST", f"/v1/{path}", body, {"Content-Type": "application/json"})
        return status, json.loads(read)

    def refusal(self, path: str, key: str = "", **fields: Any) -> tuple[int, str]:
        try:
            reply = self.call(path, fields, key)
        except Refused as refused:
            return refused.code, refused.text
        raise AssertionError(f"{path} {fields} was answered {reply}")

    def ok(self, path: str, key: str = "", **fields: Any) -> Any:
        return self.call(path, fields, key)

    def begin(self, path: str, /, key: str = "", **fields: Any) -> "Future[Any]":
        """The call, in a thread of its own."""
        return self._pool.submit(self.call, path, fields, key)

    # --- shorthand ----------------------------------------------------------------------------------

    def create(self, name: str = "q", **settings: Any) -> None:
        wanted = {"lease_timeout": "1m", "expire_timeout": "24h", "requested_partitions": 1, **settings}
        assert self.ok("queues.create", queue_name=name, **wanted).code == 200

    def produce(self, *texts: str, queue: str = "q", **more: Any) -> None:
        items = [{"utf8": text, **more} for text in texts]
        assert self.ok("queue.produce", queue_name=queue, request_timeout="1m", items=items).code == 200

    def lease(self, size: int = 10, who: str = "c", queue: str = "q", timeout: str = "1m") -> Any:
        return self.ok(
            "queue.lease", queue_name=queue, batch_size=size, client_id=who, request_timeout=timeout
        )

    def lease_later(
        self, size: int = 10, who: str = "c", queue: str = "q", timeout: str = "1m"
    ) -> "Future[Any]":
        return self.begin(
            "queue.lease", queue_name=queue, batch_size=size, client_id=who, request_timeout=timeout
        )

    def complete(self, *ids: str, queue: str = "q", partition: int = 0) -> Any:
        return self.ok(
            "queue.complete", queue_name=queue, partition=partition, request_timeout="1m", ids=list(ids)
        )

    def retry(self, *items: dict[str, Any], queue: str = "q", partition: int = 0) -> Any:
        return self.ok("queue.retry", queue_name=queue, partition=partition, items=list(items))

    def items(self, queue: str = "q", partition: int = 0, **more: Any) -> Any:
        return self.ok("storage/items.list", queue_name=queue, partition=partition, **more).items

    def scheduled(self, queue: str = "q", partition: int = 0, **more: Any) -> Any:
        return self.ok("storage/scheduled.list", queue_name=queue, partition=partition, **more).items

    def payloads(self, queue: str = "q", partition: int = 0) -> list[str]:
        return [item.payload.decode() for item in self.items(queue, partition)]

    def stats(self, queue: str = "q") -> Any:
        reply = self.ok("queue.stats", queue_name=queue)
        assert reply.queue_name == queue
        assert len(reply.logicalQueues) == 1
        return reply.logicalQueues[0]

    def counts(self, queue: str = "q") -> list[tuple[int, int, int]]:
        """(total, leased, scheduled) of each partition."""
        return [(each.total, each.total_leased, each.scheduled) for each in self.stats(queue).partitions]

    def until(self, true: Callable[[], object]) -> None:
        end = monotonic() + PATIENCE
        while not true():
            assert monotonic() < end, "it did not come true in time"
            sleep(0.002)

    def until_waiting(self, count: int, queue: str = "q", field: str = "lease_waiting") -> None:
        self.until(lambda: getattr(self.stats(queue), field) == count)

    def stamp(self, later: int = 0) -> str:
        """A moment ``later`` nanoseconds from where the clock stands."""
        return stamp(self.now + later)


def stamp(nanoseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_at(actual: Any, nanoseconds: int) -> bool:
    """A timestamp is that moment, to the microsecond."""
    return bool(actual.ToNanoseconds() // 1_000 == nanoseconds // 1_000)


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def ksuid_number(text: str) -> int:
    """What a KSUID is the text of; as its library parses it."""
    assert len(text) == 27
    number = 0
    for character in text:
        number = number * 62 + _BASE62.index(character)
    assert number < 1 << 160
    return number


def ksuid_text(number: int) -> str:
    text = ""
    for _ in range(27):
        number, digit = divmod(number, 62)
        text = _BASE62[digit] + text
    return text


def refused(future: "Future[Any]") -> tuple[int, str]:
    """How a call that was begun was refused."""
    error = future.exception(PATIENCE)
    assert isinstance(error, Refused), future.result()
    return error.code, error.text


def same_queue(info: Any, wanted: dict[str, Any]) -> bool:
    """A QueueInfo says what is wanted, as far as that goes."""
    shown = {name: getattr(info, name) for name in wanted}
    assert shown == wanted
    return True
