"""Echoes WebSocket messages through our framing, for a conformance suite that knows nothing of Querator.

``python -m tests.api.echo_server 9001`` and, against it, ``wstest -m fuzzingclient`` of the Autobahn test
suite (Python 2.7), cases 1 to 10: none may fail but 9.3 and 9.4, whose messages have more fragments
than ``limits.FRAGMENTS_MAX``.
"""

import base64
import hashlib
import sys

import trio

from querator.api import frames
from querator.api.frames import Close, FrameError, FrameReader, Ping
from querator.api.head import find_head, read_head

MESSAGE_BYTES_MAX = 20_000_000
_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def echo(stream: trio.SocketStream) -> None:
    """One connection."""
    data = b""
    while not (end := find_head(data, 0)):
        data += await stream.receive_some(65_536)
    key = read_head(data[:end]).headers["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + _SALT, usedforsecurity=False).digest())
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    reader = FrameReader(MESSAGE_BYTES_MAX)
    data = data[end:]
    try:
        while data or (data := await stream.receive_some(65_536)):
            for arrival in reader.feed(data):
                if isinstance(arrival, str):
                    await stream.send_all(frames.encode_message(arrival.encode(), is_text=True))
                elif isinstance(arrival, bytes):
                    await stream.send_all(frames.encode_message(arrival, is_text=False))
                elif isinstance(arrival, Ping):
                    await stream.send_all(frames.encode_pong(arrival.payload))
                elif isinstance(arrival, Close):
                    await stream.send_all(frames.encode_close(arrival.code, ""))
                    return
            if reader.fault is not None:
                raise reader.fault
            data = b""
    except FrameError as error:
        await stream.send_all(frames.encode_close(error.code, error.reason))
    except trio.BrokenResourceError:
        return


if __name__ == "__main__":
    trio.run(trio.serve_tcp, echo, int(sys.argv[1]))
