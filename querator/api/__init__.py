"""The doors: what clients see of a node, on one port.

::

    server ─ http_connection ─ head, chunked      bytes to requests; /health, /metrics
       │            └───────── http/              the HTTP calls (behind ``exchange.HttpHandler``)
       └─ upgrade ─ websocket ─ frames            bytes to WebSocket messages and back
                       │
                    session ─ validation          messages to calls of ``BrokerPort``
                       │   └── translation        committed deliveries to messages
                    outbox                        what waits for the client to read, bounded
    registry                                      sessions across connections, pings, watches
    calls                                         operators' calls, each a task of its own

A session is pure: it has no socket and reads no clock. A frame is one turn of the broker, and nothing in
a receive loop waits for a result: answers come back through ``Requester.deliver`` once they are
committed.
"""
