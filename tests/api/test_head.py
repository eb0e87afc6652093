"""Heads and bodies: bounds, and nothing that two readers could take differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.api.chunked import ChunkedReader
from querator.api.head import HttpFault, find_head, read_head
from querator.core import limits


def head(*lines: str, line: str = "POST /v1/x HTTP/1.1", host: str = "Host: h") -> bytes:
    return "\r\n".join([line, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def test_a_head_is_read() -> None:
    read = read_head(head("Content-Length: 5", "X-A:  one ", "x-a: two", line="GET /p?q=1 HTTP/1.1"))
    assert (read.method, read.target, read.content_length, read.is_chunked) == ("GET", "/p?q=1", 5, False)
    assert read.headers == {"host": "h", "content-length": "5", "x-a": "one, two"}
    assert read.keeps_alive


@pytest.mark.parametrize(
    ("data", "keeps_alive"),
    [
        (head(), True),
        (head("Connection: close"), False),
        (head(line="GET / HTTP/1.0"), False),
        (head("Connection: keep-alive", line="GET / HTTP/1.0"), True),
    ],
)
def test_whether_the_connection_stays(data: bytes, *, keeps_alive: bool) -> None:
    assert read_head(data).keeps_alive is keeps_alive


@pytest.mark.parametrize(
    "data",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked", "Content-Length: 5"),
        head("Content-Length: 5", "Content-Length: 5"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5, 5"),
        head("Content-Length: +5"),
        head("Content-Length: -5"),
        head("Content-Length: 0x5"),
        head("Content-Length: 5 5"),
        head("Content-Length: "),
        head("Content-Length: " + "9" * 30),
        head("Transfer-Encoding: gzip, chunked"),
        head("Transfer-Encoding: chunked, chunked"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: xchunked"),
        head("Transfer-Encoding : chunked"),
        head("Transfer-Encoding: chunked", line="POST / HTTP/1.0"),
        head("Host: other"),
        head(host=""),
        head("Bad Header: x"),
        head("X: a\x00b"),
        head("X: a\rb"),
        head(" folded: x"),
        head("X: a", " folded"),
        head("X: a", "\tfolded"),
        head("Transfer-Encoding:", " chunked"),
        head("X: a\nContent-Length: 5"),
        head("Transfer-Encoding: chunked;q=1"),
        head("Transfer-Encoding: identity"),
        head("Transfer-Encoding: \x0bchunked"),
        head("Transfer-Encoding:"),
        head("Content-Length: 5", "content-length: 5"),
        head("Content-Length: 5,"),
        head("Content-Length: 1e1"),
        head("Content-Length: \xb2"),
        head("X\xa0Y: z"),
        head("no colon"),
        head(line="POST / HTTP/1.1 extra"),
        head(line="POST /"),
        head(line="NONSENSE / HTTP/1.1"),
        head(line="post / HTTP/1.1"),
        head(line="POST / HTTP/2.0"),
        head(line="POST / HTTP/0.9"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_a_malformed_or_ambiguous_head_is_refused(data: bytes) -> None:
    with pytest.raises(HttpFault) as caught:
        read_head(data)
    assert caught.value.status in {400, 505}


def test_the_request_line_has_its_bound() -> None:
    path = "/" + "x" * (limits.REQUEST_LINE_BYTES_MAX - len("GET / HTTP/1.1"))
    at_limit = head(line=f"GET {path} HTTP/1.1")
    assert find_head(at_limit, 0) == len(at_limit)
    with pytest.raises(HttpFault) as caught:
        find_head(head(line=f"GET {path}x HTTP/1.1"), 0)
    assert caught.value.status == 414
    with pytest.raises(HttpFault) as caught:
        find_head(b"G" * (limits.REQUEST_LINE_BYTES_MAX + 2), 0)
    assert caught.value.status == 414


def test_headers_have_their_bound() -> None:
    room = limits.HEADER_BYTES_MAX - len("Host: h\r\nX: \r\n\r\n")
    at_limit = head("X: " + "x" * room)
    assert find_head(at_limit, 0) == len(at_limit)
    with pytest.raises(HttpFault) as caught:
        find_head(head("X: " + "x" * (room + 1)), 0)
    assert caught.value.status == 431
    with pytest.raises(HttpFault) as caught:
        find_head(head("X: " + "x" * (room + 20))[:-4], 0)
    assert caught.value.status == 431


def test_headers_have_a_number() -> None:
    most = limits.HEADER_LINES_MAX - 1  # beside Host
    assert len(read_head(head(*[f"X-{number}: y" for number in range(most)])).headers) == most + 1
    with pytest.raises(HttpFault) as caught:
        read_head(head(*[f"X-{number}: y" for number in range(most + 1)]))
    assert caught.value.status == 431


@given(st.binary(max_size=300))
def test_no_bytes_break_the_head(data: bytes) -> None:
    try:
        find_head(data, 0)
        read_head(data + b"\r\n\r\n")
    except HttpFault as fault:
        assert fault.detail


def chunks(*sizes: int) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"y" * size) for size in sizes)


@given(st.lists(st.integers(1, 40), max_size=5), st.integers(1, 30))
def test_chunks_are_read_however_they_are_cut(sizes: list[int], piece: int) -> None:
    data = chunks(*sizes) + b"0\r\nTrailer: x\r\n\r\nNEXT"
    reader = ChunkedReader(1_000)
    for start in range(0, len(data), piece):
        if reader.is_done:
            reader._data += data[start : start + piece]
        else:
            reader.feed(data[start : start + piece])
    assert reader.is_done
    assert reader.body == b"y" * sum(sizes)
    assert reader.leftover == b"NEXT"


def test_a_chunk_may_have_extensions() -> None:
    reader = ChunkedReader(10)
    reader.feed(b'3;name="x"\r\nabc\r\n0\r\n\r\n')
    assert reader.body == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n\n",
        b" 3\r\nabc\r\n",
        b"1" * 9 + b"\r\n",
        b"3;" + b"x" * 300 + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n" + b"x" * 9_000,
        b"3;a\rb\r\nabc\r\n",
    ],
)
def test_a_bad_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(HttpFault) as caught:
        ChunkedReader(1_000).feed(data)
    assert caught.value.status == 400


def test_a_chunked_body_has_its_bound() -> None:
    reader = ChunkedReader(10)
    reader.feed(chunks(4, 6) + b"0\r\n\r\n")
    assert reader.is_done
    assert not reader.is_too_large
    reader = ChunkedReader(10)
    reader.feed(chunks(4, 7))
    assert reader.is_too_large


@given(st.binary(max_size=200))
def test_no_bytes_break_the_chunks(data: bytes) -> None:
    try:
        ChunkedReader(100).feed(data)
    except HttpFault as fault:
        assert fault.status == 400
