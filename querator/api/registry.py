"""The sessions of a node, across their connections.

A session begins with a ``hello`` and lives as long as its connection. When that breaks, its
reservations wait for the grace (which the broker keeps); whoever presents the session's resume token
meanwhile takes it over, also from a connection that still stands, which is fenced. What was pushed
and not confirmed is kept here, and pushed again to the next connection.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from querator.actors.ports import BrokerPort
from querator.api.access import Access, OpenAccess
from querator.api.calls import Operation
from querator.api.counters import Counters
from querator.api.translation import Origin, Pushed, held_message, parts_of, reserved_message
from querator.core import limits
from querator.core.catalog import Principal
from querator.core.commands import Settle, Verb
from querator.core.ids import NEVER, Duration, Instant, PartitionId, ReservationNumber, SessionId
from querator.core.replies import Rejected
from querator.env import Env
from querator.protocol import messages as wire
from querator.protocol.closing import CloseCode
from querator.protocol.tokens import Resumption, decode_resume_token, encode_resume_token

if TYPE_CHECKING:
    from querator.api.session import Session

BEAT: Final = Duration(250_000)
"""How often the registry looks for what is due: pings, watches, the end of graces."""
SESSION_ID_BYTES: Final = 12
OWN_REQUEST: Final = -1
"""Request id of what the door asks for itself: answers to it are dropped."""

ReservationKey: TypeAlias = tuple[PartitionId, ReservationNumber]


@attrs.define(eq=False)
class SessionState:
    """What a session is, whichever connection has it."""

    session: SessionId
    generation: int
    current: "Session | None" = None
    pushes: "OrderedDict[ReservationKey, Pushed]" = attrs.field(factory=OrderedDict)
    """Unconfirmed, in order of push number."""
    push_last: int = 0
    origins: dict[int, Origin] = attrs.field(factory=dict)
    """What the latest connection's subscriptions are about ..."""
    reserves: dict[int, Origin] = attrs.field(factory=dict)
    """... and its unanswered ``reserve`` requests."""
    forgotten_at: Instant = NEVER
    """Without a connection: when what is kept for it goes."""

    def confirm(self, push: int) -> None:
        """All up to ``push`` have been taken over."""
        pushes = self.pushes
        taken_over = 0
        for pushed in pushes.values():
            if pushed.push > push:
                break
            taken_over += 1
        for _ in range(taken_over):
            pushes.popitem(last=False)


@attrs.define(eq=False, kw_only=True)
class Settings:
    """How sessions are treated. ``secret`` is shared by the nodes that clients may resume at."""

    secret: bytes = attrs.field(repr=False)
    ping_interval: Duration = limits.PING_INTERVAL
    ping_timeout: Duration = limits.PING_TIMEOUT
    grace: Duration = limits.SESSION_GRACE
    hello_timeout: Duration = limits.HELLO_TIMEOUT


class SessionRegistry:
    """All sessions of this node; ``run`` is its one task."""

    def __init__(
        self,
        env: Env,
        broker: BrokerPort,
        settings: Settings,
        *,
        access: Access | None = None,
        operations: Mapping[str, Operation] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.env = env
        self.broker = broker
        self.settings = settings
        self.access: Access = access if access is not None else OpenAccess()
        self.operations = operations if operations is not None else {}
        self.counters = counters if counters is not None else Counters()
        self.is_draining = False
        self.barred: Callable[[], Rejected | None] = _never
        """Why this node can't take sessions now ..."""
        self.owner_address: Callable[[], str] = str
        """... and where clients should go instead; "": anywhere."""
        self.watching: dict[Session, None] = {}
        """Sessions that have watches."""
        self._states: dict[SessionId, SessionState] = {}
        self._lost: deque[SessionState] = deque()
        """In order of ``forgotten_at``."""
        self._slots: list[dict[Session, None]] = [{} for _ in range(max(1, settings.ping_interval // BEAT))]
        """Sessions by the beat at which they are pinged: one slot comes up at each beat."""
        self._beat = 0

    # -- sessions --------------------------------------------------------------------------------

    @property
    def sessions(self) -> "list[Session]":
        """Those with a connection, and past ``hello``."""
        return [session for slot in self._slots for session in slot]

    def enter(self, session: "Session", hello: wire.Hello, principal: Principal) -> list[wire.ServerMessage]:
        """Begin or resume a session on this connection; ``welcome``, and what is pushed again.

        A resume token that is not good here (any more) begins a new session: the client sees another
        name in ``welcome``, and that nothing is held.
        """
        resumption = None
        if hello.resume:
            resumption = decode_resume_token(self.settings.secret, hello.resume, principal.user_id)
        state = self._take_over(resumption) if resumption is not None else self._begin()
        state.current = session
        session.attach(state, principal)
        self._slots[session.number % len(self._slots)][session] = None
        self.counters.sessions_now += 1
        answers: list[wire.ServerMessage] = []
        if resumption is None:
            self.broker.session_opened(session)
            answers.append(self._welcome(state, principal, []))
        else:
            answers += self._resume(session, state, principal, hello.confirmed)
        return answers

    def leave(self, session: "Session", *, is_goodbye: bool) -> None:
        """The connection is gone: for good, or until the client resumes."""
        if self._slots[session.number % len(self._slots)].pop(session, self) is not self:
            self.counters.sessions_now -= 1
        self.watching.pop(session, None)
        state = session.state
        if state is None or state.current is not session:
            return
        state.current = None
        now = self.broker.begin_turn()
        try:
            self._release_untaken(session, state)
            if is_goodbye:
                self.broker.session_closed(session)
            else:
                self.broker.session_lost(state.session, state.generation)
        finally:
            self.broker.end_turn()
        if is_goodbye or not (state.pushes or state.origins or state.reserves):
            # The token tells all that a resume needs.
            self._states.pop(state.session, None)
        else:
            state.forgotten_at = Instant(now + self.settings.grace)
            self._lost.append(state)

    def _begin(self) -> SessionState:
        name = SessionId(self.env.rng.token_bytes(SESSION_ID_BYTES).hex())
        state = self._states[name] = SessionState(name, 1)
        self.counters.sessions += 1
        return state

    def _take_over(self, resumption: Resumption) -> SessionState:
        state = self._states.get(resumption.session)
        if state is None:
            state = self._states[resumption.session] = SessionState(resumption.session, resumption.generation)
        # An older token is as good: its holder may have lost the welcome that brought a newer one.
        state.generation = max(state.generation, resumption.generation) + 1
        state.forgotten_at = NEVER
        if state.current is not None:
            state.current.close(CloseCode.FENCED, "a newer connection resumed this session")
            state.current.is_open = False
            self.counters.sessions_fenced += 1
        self.counters.sessions_resumed += 1
        return state

    def _resume(
        self, session: "Session", state: SessionState, principal: Principal, confirmed: int
    ) -> list[wire.ServerMessage]:
        state.confirm(confirmed)
        state.push_last = max(state.push_last, confirmed)
        held = {(entry.partition, entry.reservation): entry for entry in self.broker.session_resumed(session)}
        answers: list[wire.ServerMessage] = [
            self._welcome(
                state, principal, [held_message(entry, state.pushes.get(key)) for key, entry in held.items()]
            )
        ]
        earlier = list(state.pushes.items())
        state.pushes.clear()
        for key, pushed in earlier:
            entry = held.get(key)
            if entry is None:
                continue
            state.push_last += 1
            state.pushes[key] = attrs.evolve(pushed, push=state.push_last)
            message = reserved_message(pushed.reply, pushed.origin, state.push_last)
            message.deadline = entry.deadline
            message.again = True
            answers += parts_of(message, entry.remaining)
        return answers

    def _release_untaken(self, session: "Session", state: SessionState) -> None:
        """What never left for the client goes back without blame, at once."""
        taken = session.outbox.push_taken
        for key, pushed in list(state.pushes.items()):
            if pushed.push > taken:
                del state.pushes[key]
                settle = Settle(
                    Verb.RELEASE, pushed.reply.reservation, pushed.reply.nonce, reason="undelivered"
                )
                self.broker.settle(session, OWN_REQUEST, pushed.reply.partition, settle)

    def _welcome(self, state: SessionState, principal: Principal, held: list[wire.Held]) -> wire.Welcome:
        return wire.Welcome(
            session=state.session,
            generation=state.generation,
            resume=encode_resume_token(
                self.settings.secret, state.session, state.generation, principal.user_id
            ),
            server_time=self.env.clock.now(),
            ping_interval=self.settings.ping_interval,
            grace=self.settings.grace,
            limits=dict(ANNOUNCED_LIMITS),
            held=held,
        )

    # -- time ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Beat, for ever."""
        while True:
            await self.env.clock.sleep(BEAT)
            self.beat(self.env.clock.now())

    def beat(self, now: Instant) -> None:
        """Ping whose turn it is, report to watches, forget what nobody came back for."""
        self._beat += 1
        slot = self._slots[self._beat % len(self._slots)]
        silent_max = max(1, -(-self.settings.ping_timeout // self.settings.ping_interval))
        for session in list(slot):
            session.ping(now, silent_max)
        if self.watching:
            self.broker.begin_turn()
            try:
                for session in list(self.watching):
                    session.report(now)
            finally:
                self.broker.end_turn()
        while self._lost and (not self._lost[0].forgotten_at or self._lost[0].forgotten_at <= now):
            state = self._lost.popleft()
            if state.current is None and state.forgotten_at and self._states.get(state.session) is state:
                del self._states[state.session]

    def access_changed(self) -> None:
        """Keys, users, roles or bindings are other ones: whoever lost by it is told at once."""
        now = self.broker.begin_turn()
        try:
            for session in self.sessions:
                session.access_changed(now)
        finally:
            self.broker.end_turn()

    def send_away(self, to: str) -> None:
        """This node decides nothing any more: every client is told where to go, and cut off."""
        self.broker.begin_turn()
        try:
            for session in self.sessions:
                session.drain(self.env.clock.now(), to)
                session.close(CloseCode.GOING_AWAY, "not_owner: another node took over")
        finally:
            self.broker.end_turn()

    def drain(self, deadline: Instant, to: str = "") -> None:
        """Tell every client to finish and leave; nothing new is begun for them."""
        self.is_draining = True
        self.broker.begin_turn()
        try:
            for session in self.sessions:
                session.drain(deadline, to)
        finally:
            self.broker.end_turn()


def _never() -> Rejected | None:
    return None


ANNOUNCED_LIMITS: Final = {
    "payload_bytes": limits.PAYLOAD_BYTES_MAX,
    "batch_items": limits.BATCH_ITEMS_MAX,
    "message_bytes": limits.MESSAGE_BYTES_MAX,
    "frame_messages": limits.FRAME_COMMANDS_MAX,
    "window_items": limits.WINDOW_ITEMS_MAX,
    "window_bytes": limits.WINDOW_BYTES_MAX,
    "subscriptions": limits.SUBSCRIPTIONS_PER_SESSION_MAX,
    "reserves": limits.RESERVES_PER_SESSION_MAX,
    "watches": limits.WATCHES_PER_SESSION_MAX,
    "calls": limits.CALLS_PER_SESSION_MAX,
    "pushes_unconfirmed": limits.PUSHES_UNCONFIRMED_MAX,
    "reserve_wait": limits.RESERVE_WAIT_MAX,
}
"""What ``welcome`` tells of the bounds: enough for a client to stay within them."""
