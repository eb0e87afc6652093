"""What a welcome says we hold and nobody here has: pushed again in time, or given back, and then for good."""

import msgspec.structs

from querator.client.answers import Answer
from querator.client.protocol import Protocol
from querator.protocol import messages as wire
from tests.client.model_server import ModelServer
from tests.client.test_protocol_properties import Holder

ITEMS = 2


def talk(protocol: Protocol, server: ModelServer) -> list[wire.ServerMessage]:
    """A new connection, and what the server sends over it, the welcome apart, not yet heard."""
    protocol.opened()
    connection = server.connect()
    connection.receive(protocol.take_frame())
    welcome, *pushed = connection.take()
    protocol.receive(welcome)
    while frame := protocol.take_frame():
        connection.receive(frame)
    connection.push()
    return [*pushed, *connection.take()]


def produce(server: ModelServer, items: int = 1) -> None:
    connection = server.connect()
    connection.receive([wire.Hello(client="p"), wire.Produce(id=1, queue="one", payloads=[b"x"] * items)])
    connection.take()


def test_a_stray_that_comes_after_all_is_given_to_nobody() -> None:
    """Its release is under way by then: who worked on it would do so for nothing."""
    server, protocol, holder = ModelServer({"one": 1}), Protocol(client="c", producer="p", draw=1), Holder()
    protocol.subscribe(
        wire.Subscribe(id=0, queue="one", window=1, batch=1), holder, Answer[wire.Subscribed]()
    )
    produce(server)
    lost = [message for message in talk(protocol, server) if isinstance(message, wire.Reserved)]
    assert len(lost) == 1
    protocol.disconnected()
    late = [message for message in talk(protocol, server) if isinstance(message, wire.Reserved)]
    assert late[0].token == lost[0].token
    assert protocol.strays == 1
    protocol.release_strays()
    (release,) = protocol.take_frame()
    assert isinstance(release, wire.Release)
    assert release.token == late[0].token
    protocol.receive(late[0])
    assert holder.deliveries == []
    assert protocol.take_frame() == [wire.Confirm(push=late[0].push)]


def test_what_was_given_up_and_is_held_after_all_is_given_back() -> None:
    """At the first return its partition was not open there. A settlement of a part of it is still on its way:
    so we know the reservation, and work on it no more."""
    server, protocol, holder = ModelServer({"one": 1}), Protocol(client="c", producer="p", draw=1), Holder()
    protocol.subscribe(
        wire.Subscribe(id=0, queue="one", window=ITEMS, batch=ITEMS), holder, Answer[wire.Subscribed]()
    )
    produce(server, ITEMS)
    for message in talk(protocol, server):
        protocol.receive(message)
    (delivery,) = holder.deliveries
    reservation = delivery.reservation
    protocol.complete(reservation, 0, 1, Answer[None]())
    assert protocol.take_frame()
    protocol.disconnected()

    protocol.opened()
    connection = server.connect()
    connection.receive(protocol.take_frame())
    welcome, *_ = connection.take()
    assert isinstance(welcome, wire.Welcome)
    protocol.receive(msgspec.structs.replace(welcome, held=[]))
    assert reservation.lost
    protocol.disconnected()

    for message in talk(protocol, server):
        protocol.receive(message)
    assert protocol.strays == 1
    protocol.release_strays()
    assert [message.token for message in protocol.take_frame() if isinstance(message, wire.Release)] == [
        reservation.token
    ]
    assert len(holder.deliveries) == 1
