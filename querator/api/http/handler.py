"""The HTTP API's handler: from a request's bytes to a response's, in the order of CONTRACT.md 1.1."""

import json
from typing import Final

from querator import telemetry
from querator.api.catalog_access import FAULT_TEXTS
from querator.api.exchange import HttpRequest, HttpResponse
from querator.api.http.door import Door
from querator.api.http.endpoints import (
    BY_PATH,
    NAME_ROOM,
    PRODUCE_BODY,
    SMALL_BODY,
    USUAL_BODY,
    Endpoint,
    size_text,
)
from querator.api.http.json_codec import DecodeError, decode_json, encode_json
from querator.api.http.messages import Message, Reply
from querator.api.http.negotiation import Encoding, answer_encoding, body_encoding, error_encoding
from querator.api.http.proto_codec import decode_protobuf, encode_protobuf
from querator.api.http.refusals import (
    BAD_REQUEST,
    CODE_TEXTS,
    CONTENT_ERROR,
    INTERNAL_ERROR,
    NOT_IMPLEMENTED,
    OK,
    RETRY_REQUEST,
    UNAUTHORIZED,
    Refused,
    moved,
)
from querator.api.http.timing import Timings
from querator.core.catalog import Principal
from querator.core.limits import QUEUE_NAME_BYTES_MAX

_BEARER: Final = "Bearer "

_HEADERS: Final = {
    encoding: [("Content-Type", encoding.value), ("X-Content-Type-Options", "nosniff")]
    for encoding in Encoding
}
_DONE: Final = Reply(OK)
_DONE_BODIES: Final = {
    Encoding.JSON: encode_json(_DONE),
    Encoding.PROTOBUF: encode_protobuf(_DONE),
}


class HttpApi:
    """Implements HttpHandler over a door."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.timings = Timings()

    def body_limit(self, path: str) -> int:
        """See HttpHandler. A path that is none has the usual limit: it is refused anyway."""
        endpoint = BY_PATH.get(path)
        if endpoint is None:
            return USUAL_BODY
        bound = self._body_bytes_max(endpoint)
        return bound + NAME_ROOM if bound == SMALL_BODY else bound

    def _body_bytes_max(self, endpoint: Endpoint) -> int:
        bound = endpoint.body_bytes_max
        return self.door.settings.produce_body_bytes_max if bound == PRODUCE_BODY else bound

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """See HttpHandler."""
        try:
            return await self._handle(request)
        except Refused as refused:
            return _error(refused.code, refused.text, error_encoding(request.headers))
        except Exception as error:  # noqa: BLE001  # the boundary: a bug costs one request, not the connection
            telemetry.emit("http.bug", path=request.path, error=repr(error))
            return _error(INTERNAL_ERROR, "Internal Error", error_encoding(request.headers))

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            raise Refused(BAD_REQUEST, f"http method '{request.method}' not allowed; only POST")
        if self.door.is_standing_by():
            raise Refused(RETRY_REQUEST, moved(0))
        caller = self._authenticate(request.headers.get("authorization"))
        request.has_good_key = bool(caller.key_id)
        endpoint = BY_PATH.get(request.path)
        if endpoint is None:
            raise Refused(NOT_IMPLEMENTED, f"no such method; {request.path}")
        started_at = self.door.clock.monotonic()
        try:
            return await self._call(request, endpoint, caller)
        finally:
            self.timings.add(endpoint.path, self.door.clock.monotonic() - started_at)

    async def _call(self, request: HttpRequest, endpoint: Endpoint, caller: Principal) -> HttpResponse:
        encoding = answer_encoding(request.headers)
        message = self._decode(request, endpoint)
        reply = await endpoint.call(self.door, caller, message)
        if reply is None:
            return HttpResponse(OK, [*_HEADERS[encoding]], _DONE_BODIES[encoding])
        return HttpResponse(OK, [*_HEADERS[encoding]], _encode(reply, encoding))

    def _authenticate(self, header: str | None) -> Principal:
        access = self.door.access
        if not header:
            key = ""
        elif header.startswith(_BEARER):
            key = header[len(_BEARER) :]
        else:
            raise Refused(UNAUTHORIZED, "invalid authorization header format")
        found = access.recognise(key, self.door.clock.now())
        if isinstance(found, Principal):
            return found
        raise Refused(UNAUTHORIZED, FAULT_TEXTS[found])

    def _decode(self, request: HttpRequest, endpoint: Endpoint) -> Message:
        bound = self._body_bytes_max(endpoint)
        body = request.body
        over = Refused(BAD_REQUEST, f"request body exceeds {size_text(bound)} limit")
        may_be_named = bound == SMALL_BODY and len(body) <= SMALL_BODY + NAME_ROOM
        if request.is_too_large or (len(body) > bound and not may_be_named):
            raise over
        decode = decode_json if body_encoding(request.headers) is Encoding.JSON else decode_protobuf
        try:
            message = decode(body, endpoint.request)
        except DecodeError as error:
            raise over if len(body) > bound else Refused(CONTENT_ERROR, str(error)) from error
        if len(body) > bound and len(body) - _name_bytes(body, message) > bound:
            raise over
        return message


def _name_bytes(body: bytes, message: Message) -> int:
    """How much of the body is the name of a queue, if it may have that name."""
    name: str = getattr(message, "queue_name", "")
    plain = name.encode()
    if len(plain) > QUEUE_NAME_BYTES_MAX:
        return 0
    escaped = json.dumps(name)[1:-1].encode()
    return len(escaped) if escaped in body else len(plain)


def _encode(message: Message, encoding: Encoding) -> bytes:
    return encode_json(message) if encoding is Encoding.JSON else encode_protobuf(message)


def _error(code: int, text: str, encoding: Encoding) -> HttpResponse:
    body = _encode(Reply(code, CODE_TEXTS[code], text), encoding)
    return HttpResponse(code, [*_HEADERS[encoding]], body)
