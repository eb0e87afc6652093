"""The WebSocket framing: judged against wsproto's, and by what it must refuse."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage
from wsproto.events import Ping as WsPing
from wsproto.events import Pong as WsPong

from querator.api import frames
from querator.api.frames import Close, FrameError, FrameReader, Ping, Pong
from querator.core import limits


def client_frame(
    opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"\x01\x02\x03\x04"
) -> bytes:
    """A client's frame, made by hand so that it may be wrong."""
    size = len(payload)
    first = (0x80 if fin else 0) | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


messages = st.binary(max_size=300) | st.text(max_size=300) | st.sampled_from(
    [b"", b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536, "é" * 40_000]
)  # fmt: skip


@given(st.lists(messages, max_size=5), st.integers(1, 70_000))
def test_what_wsproto_sends_arrives_however_it_is_cut(sent: list[str | bytes], piece: int) -> None:
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(
        client.send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))
        for message in sent
    )
    reader = FrameReader()
    arrived = [
        arrival
        for start in range(0, len(data), piece)
        for arrival in reader.feed(data[start : start + piece])
    ]
    assert arrived == sent


@given(st.lists(messages, max_size=5))
def test_wsproto_understands_what_we_send(sent: list[str | bytes]) -> None:
    client = Connection(ConnectionType.CLIENT)
    for message in sent:
        is_text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        client.receive_data(frames.encode_message(data, is_text=is_text))
        parts = [event.data for event in client.events() if isinstance(event, Message)]
        assert (b"" if isinstance(message, bytes) else "").join(parts) == message


def test_wsproto_understands_our_control_frames() -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(
        frames.encode_ping(b"a") + frames.encode_pong(b"b") + frames.encode_close(4409, "é" * 200)
    )
    ping, pong, close = client.events()
    assert isinstance(ping, WsPing)
    assert isinstance(pong, WsPong)
    assert isinstance(close, CloseConnection)
    assert (bytes(ping.payload), bytes(pong.payload), close.code) == (b"a", b"b", 4409)
    assert close.reason == "é" * 61


def test_control_frames_come_between_fragments() -> None:
    data = (
        client_frame(1, b"a", fin=False)
        + client_frame(9, b"p")
        + client_frame(0, "é".encode()[:1], fin=False)
        + client_frame(10, b"q")
        + client_frame(0, "é".encode()[1:])
        + client_frame(2, b"")
    )
    assert FrameReader().feed(data) == [Ping(b"p"), Pong(b"q"), "aé", b""]


def test_nothing_follows_a_close() -> None:
    reader = FrameReader()
    data = client_frame(8, struct.pack(">H", 1000) + b"bye") + client_frame(1, b"late")
    assert reader.feed(data) == [Close(1000, "bye")]
    assert reader.feed(client_frame(1, b"later")) == []
    assert FrameReader().feed(client_frame(8, b"")) == [Close(1005, "")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80", 1002),  # a reserved bit
        (client_frame(3, b""), 1002),  # an unknown opcode
        (client_frame(11, b""), 1002),
        (client_frame(9, b"", fin=False), 1002),  # a fragmented ping
        (client_frame(9, b"x" * 126), 1002),  # a long ping
        (client_frame(0, b""), 1002),  # nothing to continue
        (client_frame(1, b"", fin=False) + client_frame(1, b""), 1002),  # a message within a message
        (client_frame(8, b"\x03"), 1002),
        (client_frame(8, struct.pack(">H", 1005)), 1002),
        (client_frame(8, struct.pack(">H", 999)), 1002),
        (client_frame(8, struct.pack(">H", 5000)), 1002),
        (client_frame(8, struct.pack(">H", 1000) + b"\xff"), 1007),
        (client_frame(1, b"\xff"), 1007),
        (client_frame(1, b"\xc3", fin=False) + client_frame(0, b"x"), 1007),
        (client_frame(1, b"\xed\xa0\x80"), 1007),  # a surrogate
        (b"\x81\xff" + b"\xff" * 8, 1009),
        (b"\x82\xff" + struct.pack(">Q", limits.MESSAGE_BYTES_MAX + 1), 1009),
    ],
)
def test_a_fault_in_the_framing_has_its_close_code(data: bytes, code: int) -> None:
    reader = FrameReader()
    with pytest.raises(FrameError) as caught:
        reader.feed(data)
    assert caught.value.code == code


def test_what_came_whole_before_a_fault_is_not_lost_with_it() -> None:
    reader = FrameReader()
    assert reader.feed(client_frame(1, b"good") + b"\xff\xff") == ["good"]
    assert reader.fault is not None
    with pytest.raises(FrameError):
        reader.feed(b"")


def test_a_message_has_as_many_bytes_as_the_limit_says() -> None:
    reader = FrameReader(1_000)
    assert reader.feed(client_frame(2, b"x" * 1_000)) == [b"x" * 1_000]
    halves = client_frame(2, b"x" * 500, fin=False) + client_frame(0, b"x" * 500)
    assert reader.feed(halves) == [b"x" * 1_000]
    with pytest.raises(FrameError) as caught:
        reader.feed(client_frame(2, b"x" * 500, fin=False) + client_frame(0, b"x" * 501))
    assert caught.value.code == 1009


def test_the_size_is_refused_before_the_bytes_come() -> None:
    with pytest.raises(FrameError):
        FrameReader(1_000).feed(client_frame(2, b"x" * 1_001)[:4])


def test_a_message_has_as_many_fragments_as_the_limit_says() -> None:
    def fragments(count: int) -> bytes:
        middle = client_frame(0, b"x", fin=False) * (count - 2)
        return client_frame(2, b"x", fin=False) + middle + client_frame(0, b"x")

    assert FrameReader().feed(fragments(limits.FRAGMENTS_MAX)) == [b"x" * limits.FRAGMENTS_MAX]
    with pytest.raises(FrameError) as caught:
        FrameReader().feed(fragments(limits.FRAGMENTS_MAX + 1))
    assert caught.value.code == 1009


@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_bytes_break_the_reader(data: bytes, piece: int) -> None:
    reader = FrameReader(1_000)
    try:
        for start in range(0, len(data), piece):
            reader.feed(data[start : start + piece])
    except FrameError as error:
        assert error.code in {1002, 1007, 1009}


def test_a_large_message_in_small_reads_is_joined_once() -> None:
    """Reading 1 MiB in 64-byte pieces takes no time worth measuring: the work is linear."""
    payload = bytes(range(256)) * 4_096
    data = client_frame(2, payload)
    reader = FrameReader()
    arrived = [arrival for at in range(0, len(data), 64) for arrival in reader.feed(data[at : at + 64])]
    assert arrived == [payload]
