"""The chunked transfer coding, read strictly: whatever another reader might see otherwise is a fault."""

from typing import Final

from querator.api.head import HttpFault

_SIZE_LINE_BYTES_MAX: Final = 256
"""A chunk's size and extensions; the latter are read over."""
_TRAILER_BYTES_MAX: Final = 8_192
_HEXADECIMAL: Final = frozenset(b"0123456789abcdefABCDEF")
_SIZE_DIGITS_MAX: Final = 8


class ChunkedReader:
    """Takes bytes, gathers the body. Never holds more than ``body_bytes_max`` of it."""

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._data = bytearray()
        self._chunks: list[bytes] = []
        self._size = 0
        self._left = 0
        """Bytes of the current chunk that are still to come, and its line end."""
        self._in_trailer = False
        self.is_done = False
        self.is_too_large = False
        """The body is over the limit; reading stopped."""

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)

    @property
    def leftover(self) -> bytes:
        """When done: what came behind the body."""
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        """Take more bytes.

        Raises:
            HttpFault: this is not the chunked coding.
        """
        self._data += data
        while not self.is_done and not self.is_too_large and self._step():
            pass

    def _step(self) -> bool:
        """Take one line or chunk; whether there was one."""
        if self._left:
            return self._take_chunk()
        most = _TRAILER_BYTES_MAX if self._in_trailer else _SIZE_LINE_BYTES_MAX
        end = self._data.find(b"\r\n", 0, most + 2)
        if end < 0:
            if len(self._data) > most or b"\n" in self._data:
                raise HttpFault(400, "malformed chunk")
            return False
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        if b"\n" in line or b"\r" in line:
            raise HttpFault(400, "malformed chunk")
        if self._in_trailer:
            self.is_done = not line
            if line and b":" not in line:
                raise HttpFault(400, "malformed trailer")
            return True
        self._begin_chunk(line)
        return True

    def _begin_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > _SIZE_DIGITS_MAX or not _HEXADECIMAL.issuperset(digits):
            raise HttpFault(400, "malformed chunk size")
        size = int(digits, 16)
        if not size:
            self._in_trailer = True
            return
        self._size += size
        self.is_too_large = self._size > self._body_bytes_max
        self._left = size + 2

    def _take_chunk(self) -> bool:
        if len(self._data) < self._left:
            return False
        chunk = bytes(self._data[: self._left])
        del self._data[: self._left]
        if chunk[-2:] != b"\r\n":
            raise HttpFault(400, "malformed chunk")
        self._chunks.append(chunk[:-2])
        self._left = 0
        return True
