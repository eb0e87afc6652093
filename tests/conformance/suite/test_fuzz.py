"""Bodies and values that nobody expects: each is answered, in the reply's form, and nothing breaks.

Seeds are written out, more is drawn by Hypothesis. What names and durations mean is judged by rules of this
module's own.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.api.http.contract import message_rows
from tests.conformance.suite.go_client import CALLS, CODES, MESSAGES, PROTOBUF, Control, Server

PATHS = [path.removeprefix("/v1/") for path in CALLS]
ROWS = message_rows()
FEW = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""The Unicode property White_Space."""


@pytest.fixture(scope="module")
def fuzzed(control: Control) -> Iterator[Server]:
    """One server for all of a module; what one example leaves behind must not disturb the next."""
    server = control.new(now=1_800_000_000 * 10**9)
    control.servers.remove(server)
    yield server
    control.servers.append(server)
    server.stop()


@pytest.fixture(autouse=True)
def alive(fuzzed: Server) -> Iterator[None]:
    """Whatever was sent, the server still does its work."""
    fuzzed.ok("queues.list")
    if fuzzed.json("queues.info", {"queue_name": "q"})[0] != 200:
        fuzzed.create()
    yield
    assert fuzzed.raw("GET", "/health")[0] == 200
    fuzzed.create("check")
    fuzzed.produce("x", queue="check")
    assert fuzzed.lease(1, queue="check").items[0].bytes == b"x"
    fuzzed.ok("queues.delete", queue_name="check")


def answered(server: Server, path: str, body: bytes, **headers: str) -> int:
    """The status, after a look at the form of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, got, read = server.raw("POST", f"/v1/{path}", body, named)
    kind = MESSAGES[CALLS[f"/v1/{path}"][1] if status == 200 else "Reply"]
    reply = kind.FromString(read) if got["content-type"] == PROTOBUF else json_format.Parse(read, kind())
    if status != 200:
        assert status in CODES
        assert status not in (500, 501, 512), read
        assert (reply.code, reply.code_text) == (status, CODES[status])
        assert reply.message
    return status


# --- bodies -------------------------------------------------------------------------------------------

JSON_SEEDS = [
    b"",
    b" ",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"0",
    b'""',
    b"{",
    b"}",
    b'{"',
    b'{"a"',
    b'{"a":',
    b'{"a":1',
    b"{}{}",
    b'{"queue_name":null}',
    b'{"queue_name":""}',
    b'{"queue_name":"q"}',
    b'{"queue_name":"q","partition":1e1000}',
    b'{"queue_name":"\\u0000"}',
    b'{"queue_name":"\\ud83e\\udd86"}',
    b'{"queue_name":"\\udd86\\ud83e"}',
    b'{"queue_name":"' + b"x" * 400 + b'"}',
    b'{"\\u0071ueue_name":"q"}',
    b'{"queue_name":"q","queue_name":"q"}',
    b'{"items":[]}',
    b'{"items":[{}]}',
    b'{"items":[null]}',
    b'{"items":[[]]}',
    b'{"items":{"a":1}}',
    b'{"ids":["", null]}',
    b'{"ids":[1]}',
    b'{"limit":-1}',
    b'{"limit":-2147483648}',
    b'{"limit":"2147483647"}',
    b'{"limit":1.0e0}',
    b'{"limit":"1e3"}',
    b'{"limit":""}',
    b'{"pivot":"~"}',
    b'{"__proto__":{}}',
    b"\xef\xbb\xbf{}",
    b'{"queue_name":"\xff"}',
    b"\xff\xfe{\x00}\x00",
    b"{" * 400,
    b"[" * 400,
    b'{"a":' * 80,
    b'{"lease_timeout":"9" }',
    b'{"request_timeout":"99999999999999999999h"}',
    b'{"request_timeout":"-1m"}',
    b'{"request_timeout":"\xc2\xb5s"}',
]
PROTO_SEEDS = [
    b"",
    b"\x00",
    b"\x08",
    b"\x0a",
    b"\x0a\x00",
    b"\x0a\x01q",
    b"\x0a\x01\xff",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x0b",
    b"\x0b\x0c",
    b"\x0c",
    b"\x0d\x00\x00\x00\x00",
    b"\x0e",
    b"\x0f",
    b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x10\x80\x80\x80\x80\x10",
    b"\x1a\x00",
    b"\x1a\x02\x0a\x00",
    b"\x1a\x02\x22\x00",
    b"\x22\x01\x00",
    b"\x7a\x00",
    b"\xf8\xff\xff\xff\x0f\x00",
    b"\x0a\x01q\x0a\x01r",
    b"\x80\x01",
    b"\x22\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
]


@pytest.mark.parametrize("path", PATHS)
def test_seeds(fuzzed: Server, path: str) -> None:
    for body in JSON_SEEDS:
        answered(fuzzed, path, body)
        answered(fuzzed, path, body, Content_Type=PROTOBUF)
    for body in PROTO_SEEDS:
        answered(fuzzed, path, body, Content_Type=PROTOBUF, Accept=PROTOBUF)
        answered(fuzzed, path, body)


@FEW
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200), protobuf=st.booleans())
def test_any_bytes(fuzzed: Server, path: str, body: bytes, protobuf: bool) -> None:
    answered(fuzzed, path, body, **({"Content_Type": PROTOBUF} if protobuf else {}))


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELD_NAMES = sorted({name for fields in ROWS.values() for _, name, _, _, _ in fields})


@FEW
@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(FIELD_NAMES), SHAPES, max_size=5))
def test_any_document(fuzzed: Server, path: str, body: dict[str, Any]) -> None:
    answered(fuzzed, path, json.dumps(body).encode())


STAMPS = st.builds(
    lambda seconds, nanos: {"seconds": seconds, "nanos": nanos},
    st.sampled_from(
        [0, 1, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 2**62, -(2**62)]
    )
    | st.integers(1_799_000_000, 1_801_000_000),
    st.sampled_from([0, 1, -1, 999_999_999, 1_000_000_000, -(2**31)]),
)
TEXTS = st.sampled_from(
    ["", "q", " ", "a~b", "_system", "0" * 27, "z" * 27, "1m", "15m", "0s", "x", "Admin", "anonymous"]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS | st.text(max_size=12),
    "int32": st.sampled_from([0, 1, -1, 2, 1_000, 1_001, 65_536, 65_537, 2**31 - 1, -(2**31)]),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=16),
}


def fill(message: Any, name: str, draw: st.DrawFn, depth: int = 0) -> None:
    """Give the fields of a message values, or not."""
    for _, field, kind, repeated, _ in ROWS[name]:
        if kind == "map" or (kind in ROWS and depth > 1) or draw(st.integers(0, 2)) == 0:
            continue
        for _ in range(draw(st.integers(0, 2)) if repeated else 1):
            if kind == "ts":
                stamp = draw(STAMPS)
                target = getattr(message, field)
                target.seconds, target.nanos = stamp["seconds"], stamp["nanos"]
            elif kind in ROWS:
                fill(getattr(message, field).add(), kind, draw, depth + 1)
            elif repeated:
                getattr(message, field).append(draw(VALUES[kind]))
            else:
                setattr(message, field, draw(VALUES[kind]))


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    path = draw(st.sampled_from(PATHS))
    name = CALLS[f"/v1/{path}"][0]
    message = MESSAGES[name]()
    fill(message, name, draw)
    if path == "queue.lease":
        # The clock stands: a lease that found nothing would wait for ever.
        message.queue_name = "none" if message.queue_name == "q" else message.queue_name
    return path, message.SerializeToString()


@settings(FEW, max_examples=250)
@given(request=requests())
def test_any_message(fuzzed: Server, request: tuple[str, bytes]) -> None:
    """In protobuf; the answers in both encodings."""
    path, body = request
    answered(fuzzed, path, body, Content_Type=PROTOBUF)
    answered(fuzzed, path, body, Content_Type=PROTOBUF, Accept=PROTOBUF)


# --- names --------------------------------------------------------------------------------------------


def fault_of_name(name: str) -> str:
    """By the contract's N; empty: none."""
    if len(name.encode()) > 512:
        return "cannot be greater than '512' characters"
    if not name.strip(SPACE):
        return "queue name cannot be empty"
    if any(character in SPACE for character in name):
        return f"'{name}' cannot contain whitespace"
    return f"'{name}' cannot contain '~' character" if "~" in name else ""


NAMES = st.text(st.characters(codec="utf-8"), max_size=20) | st.text(
    st.sampled_from("a~ \t\x1c\x85\u3000:_é"), max_size=4
)


@FEW
@example("\x1c")
@example("a\x1fb")
@example("\x85")
@example("\u200b")
@example("x" * 512)
@example("é" * 257)
@given(name=NAMES)
def test_names_of_queues(fuzzed: Server, name: str) -> None:
    fields: dict[str, Any] = {
        "queue_name": name,
        "lease_timeout": "1m",
        "expire_timeout": "1h",
        "requested_partitions": 1,
    }
    fault = fault_of_name(name)
    if fault:
        assert fuzzed.refusal("queues.create", **fields) == (400, f"queue name is invalid; {fault}")
        return
    if name in ("q", "check"):
        return
    assert fuzzed.ok("queues.create", **fields).code == 200
    assert fuzzed.ok("queues.info", queue_name=name).queue_name == name
    assert fuzzed.ok("queues.list", pivot=name, limit=1).items[0].queue_name == name
    fuzzed.produce(name, queue=name)
    assert fuzzed.lease(1, queue=name).items[0].bytes.decode() == name
    assert fuzzed.ok("queues.delete", queue_name=name).code == 200


# --- durations ----------------------------------------------------------------------------------------

UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
}
PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def nanoseconds_of(text: str) -> int | None:
    """By the grammar; ``None``: it is no duration."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text[1:] if text[:1] == "+" else text)
    if rest == "0":
        return 0
    total, position = 0, 0
    while position < len(rest) or not position:
        match = PART.match(rest, position)
        if match is None:
            return None
        total += int(
            Fraction(f"0{match[1]}" if match[1][0] == "." else match[1].rstrip(".")) * UNITS[match[2]]
        )
        position = match.end()
    return sign * total if total < 1 << 63 else None


DURATIONS = st.from_regex(
    r"[+-]?((\d{0,3}(\.\d{0,3})?)(ns|us|µs|ms|s|m|h|d|x|)){0,3}", fullmatch=True
) | st.text(max_size=6)


@settings(FEW, max_examples=150)
@example("1")
@example("1x")
@example("foo")
@example('"')
@example("\\")
@example("1m\x00")
@example("é")
@example("9223372036854775807ns")
@example("9223372036854775808ns")
@example(".s")
@example("1.s")
@example("+")
@example("0")
@example("-0")
@given(text=DURATIONS)
def test_durations(fuzzed: Server, text: str) -> None:
    """A produce without items gets to its timeout's checks and no further."""
    code, message = fuzzed.refusal("queue.produce", queue_name="q", request_timeout=text)
    assert code == 400
    timeout = nanoseconds_of(text) if text else 0
    if timeout is None:
        assert message.startswith("request timeout is invalid; time: ")
        assert message.endswith(" - expected format: 900ms, 5m or 15m")
    elif timeout == 0:
        assert message.startswith("request timeout is required")
    elif timeout >= 15 * UNITS["m"]:
        assert message.startswith("request timeout is invalid; maximum timeout")
    elif timeout <= 10 * UNITS["ms"]:
        assert message.startswith("request timeout is invalid; minimum timeout")
    else:
        assert message.startswith("items cannot be empty")


# --- items --------------------------------------------------------------------------------------------


@FEW
@given(
    items=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "bytes": st.binary(max_size=20),
                "utf8": st.text(max_size=10),
                "kind": st.text(max_size=5),
                "encoding": st.text(max_size=5),
                "reference": st.text(max_size=5),
            },
        ),
        min_size=1,
        max_size=8,
    )
)
def test_items_come_back_as_they_were(fuzzed: Server, items: list[dict[str, Any]]) -> None:
    request = MESSAGES["QueueProduceRequest"](queue_name="q", request_timeout="1m", items=items)
    fuzzed.ok("queue.clear", queue_name="q", queue=True, scheduled=True, destructive=True)
    assert answered(fuzzed, "queue.produce", request.SerializeToString(), Content_Type=PROTOBUF) == 200
    leased = fuzzed.lease(10).items
    assert len(leased) == len(items)
    for got, given_item in zip(leased, items, strict=True):
        assert got.bytes == (given_item.get("bytes") or given_item.get("utf8", "").encode())
        for field in ("kind", "encoding", "reference"):
            assert getattr(got, field) == given_item.get(field, "")
