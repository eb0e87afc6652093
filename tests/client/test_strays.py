"""What a welcome says we hold and nobody here has: pushed again in time, or given back, and then for good."""

from querator.client.answers import Answer
from querator.client.protocol import Protocol
from querator.protocol import messages as wire
from tests.client.model_server import ModelServer
from tests.client.test_protocol_properties import Holder


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


def produce(server: ModelServer) -> None:
    connection = server.connect()
    connection.receive([wire.Hello(client="p"), wire.Produce(id=1, queue="one", payloads=[b"x"])])
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
