"""What the doors count. Plain integers, written on the hot path and read by ``/metrics``."""

import attrs


@attrs.define(eq=False)
class Counters:
    """Of one server, since it started; what is named ``_now`` goes up and down."""

    connections_now: int = 0
    connections: int = 0
    connections_refused: int = 0
    sessions_now: int = 0
    sessions: int = 0
    sessions_resumed: int = 0
    sessions_fenced: int = 0
    sessions_cut_off: int = 0
    subscriptions_now: int = 0
    frames_received: int = 0
    frames_sent: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    faults: int = 0
    """Messages that could not be read."""
    calls_now: int = 0
    http_requests: int = 0
    http_faults: int = 0
    """Requests that were no HTTP, or over a bound."""
