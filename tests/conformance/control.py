"""The control port: just enough HTTP for form-encoded orders, on keep-alive connections."""

import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, urlsplit

import trio

Order = Callable[[str, Mapping[str, str]], Awaitable[tuple[int, dict[str, str]]]]
"""(path, fields) to (status, document)."""

HEAD_BYTES_MAX = 65_536


async def serve_connection(stream: trio.SocketStream, order: Order) -> None:
    """Orders in order, until the client hangs up. A bug in one is told to the client and costs nobody."""
    async with stream:
        buffer = b""
        while True:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            while not end:
                more = await _receive(stream)
                if not more or len(head) > HEAD_BYTES_MAX:
                    return
                head, end, buffer = (head + more).partition(b"\r\n\r\n")
            request_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            length = int(headers.get("content-length", "0"))
            while len(buffer) < length:
                more = await _receive(stream)
                if not more:
                    return
                buffer += more
            body, buffer = buffer[:length], buffer[length:]
            status, document = await _carry_out(request_line, body, order)
            answer = json.dumps(document).encode()
            kind = "Content-Type: application/json"
            head_lines = f"HTTP/1.1 {status} -\r\n{kind}\r\nContent-Length: {len(answer)}\r\n\r\n"
            try:
                await stream.send_all(head_lines.encode() + answer)
            except trio.BrokenResourceError:
                return
            if headers.get("connection", "").lower() == "close":
                return


async def _receive(stream: trio.SocketStream) -> bytes:
    try:
        return bytes(await stream.receive_some())
    except trio.BrokenResourceError:
        return b""


async def _carry_out(request_line: str, body: bytes, order: Order) -> tuple[int, dict[str, str]]:
    method, target, _ = [*request_line.split(" "), "", ""][:3]
    if method != "POST":
        return 405, {"error": "orders are POSTs"}
    parts = urlsplit(target)
    fields = {
        **dict(parse_qsl(parts.query, keep_blank_values=True)),
        **dict(parse_qsl(body.decode(), keep_blank_values=True)),
    }
    try:
        return await order(parts.path, fields)
    except Exception as error:  # noqa: BLE001 - the boundary of one order
        traceback.print_exc()
        return 500, {"error": repr(error)}
