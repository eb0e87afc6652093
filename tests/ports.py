"""Ports for servers that tests and benchmarks start.

A port from the system's own range of outgoing connections may be taken by one in the moment between being
found free and being listened at, or while the server behind it is being restarted. These lie below it.
"""

import itertools
import os
import socket

_FIRST, _END = 20_000, 30_000
_STRIDE = 97
"""Processes that are started one after the other begin that far apart."""

_next = itertools.count(os.getpid() * _STRIDE)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at; never the same one twice in a process."""
    for number in itertools.islice(_next, _END - _FIRST):
        port = _FIRST + number % (_END - _FIRST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port from {_FIRST} to {_END} is free")
