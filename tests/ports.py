"""Ports for servers that tests and benchmarks start.

A port from the system's own range of outgoing connections may be taken by one in the moment between being
found free and being listened at, or while the server behind it is being restarted. These lie outside of it.
And other test processes on this machine leave them alone for as long as this one lives.
"""

import itertools
import os
import socket
import sys
from pathlib import Path

_WANTED = range(20_000, 30_000)
_STRIDE = 97
"""Processes that are started one after the other begin that far apart."""
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")

_next = itertools.count(os.getpid() * _STRIDE)
_claims: list[socket.socket] = []


def _candidates() -> range:
    """The larger part of the wanted ones, or of all, that is not for outgoing connections."""
    if not _OUTGOING.exists():
        return _WANTED
    first, last = map(int, _OUTGOING.read_text().split())
    if last < _WANTED.start or first >= _WANTED.stop:
        return _WANTED
    return max(range(1_024, first), range(last + 1, 65_536), _WANTED[:1_000], key=len)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at; never the same one twice in a process."""
    candidates = _candidates()
    for number in itertools.islice(_next, len(candidates)):
        port = candidates[number % len(candidates)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if _claim(port):
            return port
    raise RuntimeError(f"no port from {candidates.start} to {candidates.stop} is free")


def _claim(port: int) -> bool:
    """By a name in the system's memory, which goes with the process."""
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0querator-test-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True
