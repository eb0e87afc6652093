"""Sessions without sockets, for tests."""

from collections.abc import Sequence

import attrs
from msgspec import Raw

from querator.api.access import Access
from querator.api.calls import Operation
from querator.api.registry import SessionRegistry, Settings
from querator.api.session import Session
from querator.core.ids import Duration, Instant
from querator.env import Env
from querator.env.virtual import virtual_env
from querator.protocol import messages as wire
from querator.protocol.codec import JSON, Codec
from tests.api.fakes import FakeBroker

SECRET = b"k" * 32
START = Instant(1_790_000_000_000_000)


class StoppedClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> Instant:
        return self.at

    def align(self, reference: Instant) -> None:
        """It has a time of its own."""

    def monotonic(self) -> int:
        return self.at

    async def sleep(self, duration: Duration) -> None:
        raise NotImplementedError

    async def sleep_until(self, instant: Instant) -> None:
        raise NotImplementedError

    def step(self, reference: Instant | None = None) -> Duration:
        del reference
        return Duration(0)


class House:
    """A registry and a broker around a stopped clock."""

    def __init__(
        self, *queues: str, access: Access | None = None, operations: dict[str, Operation] | None = None
    ) -> None:
        self.clock = StoppedClock()
        self.env: Env = attrs.evolve(virtual_env(1), clock=self.clock)
        self.broker = FakeBroker(self.clock, *queues)
        self.registry = SessionRegistry(
            self.env, self.broker, Settings(secret=SECRET), access=access, operations=operations
        )
        self.calls: list[wire.Call] = []

    def connect(self, codec: Codec = JSON, *, authorization: str = "") -> "Peer":
        """A connection that has not said hello."""
        session = Session(self.registry, codec, authorization=authorization, start_call=self.calls.append)
        return Peer(self, session)

    def session(self, codec: Codec = JSON, **hello: str | int) -> "Peer":
        """A connection that has said hello; ``peer.welcome`` is the answer."""
        peer = self.connect(codec)
        answers = peer.say(wire.Hello(client="test", **hello))  # type: ignore[arg-type]  # as Hello has them
        assert isinstance(answers[0], wire.Welcome)
        peer.welcome = answers[0]
        peer.pushed_again = answers[1:]
        return peer


class Peer:
    """The client's end of one session."""

    def __init__(self, house: House, session: Session) -> None:
        self.house = house
        self.session = session
        self.codec = session.codec
        self.welcome: wire.Welcome = wire.Welcome("", 0, "", 0, 0, 0, {})
        self.pushed_again: Sequence[wire.ServerMessage] = ()

    def say(self, *messages: wire.ClientMessage) -> list[wire.ServerMessage]:
        """Send one frame of these; everything that waits for us afterwards."""
        self.session.receive([self.codec.encode(messages)])
        return self.hear()

    def say_raw(self, *frames: str | bytes) -> list[wire.ServerMessage]:
        """Send these WebSocket messages."""
        self.session.receive(frames)
        return self.hear()

    def hear(self) -> list[wire.ServerMessage]:
        """All that waits to be sent, as if sent."""
        return [message for frame in self.hear_frames() for message in frame]

    def hear_frames(self) -> list[list[wire.ServerMessage]]:
        """The same, by WebSocket message."""
        frames = []
        while batches := self.session.outbox.take():
            frames.append(self.codec.decode_server(self.codec.join(batches)))
        return frames

    @property
    def close_code(self) -> int | None:
        """With what the connection is being closed."""
        farewell = self.session.outbox.farewell
        return None if farewell is None else farewell.code

    def hang_up(self, *, goodbye: bool = False) -> None:
        self.session.disconnected(is_goodbye=goodbye)


def params(codec: Codec, value: object) -> Raw:
    return codec.encode_value(value)
