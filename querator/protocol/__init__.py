"""The wire protocol of ``/v1/stream``, without a socket: messages, codecs, tokens, close codes.

docs/PROTOCOL.md specifies it; client and server share this package. Nothing here waits, reads a
clock or holds a connection.
"""
