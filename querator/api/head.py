"""An HTTP/1.1 request's head: found, bounded and read. Pure; httptools does the grammar.

Everything that lets two readers of one byte stream disagree about where a request ends is refused
(request smuggling): both lengths, two lengths, transfer codings other than ``chunked``, bare line feeds.
"""

from typing import Final

import attrs
import httptools

from querator.core import limits

HEAD_BYTES_MAX: Final = limits.HEADER_BYTES_MAX + limits.REQUEST_LINE_BYTES_MAX
_END: Final = b"\r\n\r\n"


class HttpFault(Exception):
    """The request cannot be served; answer with ``status`` and close."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@attrs.define
class Head:
    """What a request's head says. Names of headers in lower case; repeated ones are joined by ``", "``."""

    method: str
    target: str
    headers: dict[str, str]
    keeps_alive: bool
    content_length: int
    is_chunked: bool

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"


def find_head(data: bytes | bytearray, searched: int) -> int:
    """Where the body begins, 0 if the head is not complete; ``searched`` bytes were looked through before.

    Raises:
        HttpFault: it is over its bounds already.
    """
    found = data.find(_END, max(0, searched - len(_END) + 1))
    end = found + len(_END) if found >= 0 else 0
    line = data.find(b"\r\n", 0, limits.REQUEST_LINE_BYTES_MAX + 2)
    if line < 0 and len(data) > limits.REQUEST_LINE_BYTES_MAX + 1:
        raise HttpFault(414, f"a request line is at most {limits.REQUEST_LINE_BYTES_MAX} bytes")
    if line >= 0 and (end or len(data)) - line - 2 > limits.HEADER_BYTES_MAX:
        raise HttpFault(431, f"headers are at most {limits.HEADER_BYTES_MAX} bytes")
    return end


class _Collector:
    """httptools' callbacks."""

    __slots__ = ("headers", "keeps_alive", "parser", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.keeps_alive = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.keeps_alive = self.parser.should_keep_alive()


def read_head(data: bytes) -> Head:
    """Read a whole head, its empty line included.

    Raises:
        HttpFault: it is malformed or ambiguous.
    """
    collector = _Collector()
    try:
        collector.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise HttpFault(400, f"malformed request: {error}") from error
    if len(collector.headers) > limits.HEADER_LINES_MAX:
        raise HttpFault(431, f"a request has at most {limits.HEADER_LINES_MAX} headers")
    headers: dict[str, str] = {}
    for raw_name, raw_value in collector.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise HttpFault(400, f"more than one {name} header")
            headers[name] += f", {value}"
        else:
            headers[name] = value
    version = collector.parser.get_http_version()
    if version == "1.1":
        if "host" not in headers:
            raise HttpFault(400, "a request names its host")
    elif version != "1.0":
        raise HttpFault(505, "HTTP/1.1 is spoken here")
    length, is_chunked = _framing(headers, version)
    return Head(
        collector.parser.get_method().decode("ascii"),
        collector.target.decode("latin-1"),
        headers,
        collector.keeps_alive,
        length,
        is_chunked,
    )


_SINGLE: Final = frozenset(
    ("content-length", "transfer-encoding", "host", "authorization", "content-type", "expect")
)


def _framing(headers: dict[str, str], version: str) -> tuple[int, bool]:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise HttpFault(400, "both a Content-Length and a Transfer-Encoding")
        if coding.lower() != "chunked" or version == "1.0":
            raise HttpFault(400, "the only transfer coding is chunked, in HTTP/1.1")
        return 0, True
    if length is None:
        return 0, False
    if not length.isascii() or not length.isdigit() or len(length) > 15:
        raise HttpFault(400, "malformed Content-Length")
    return int(length), False
