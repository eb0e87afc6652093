"""What the clients of a run saw: the only evidence the checkers have besides the log.

All moments here are virtual seconds since the start of the run, on one clock that no node shares.
"""

import attrs


@attrs.frozen
class Settlement:
    """A settlement that was answered positively. ``verb``: complete | retry | release | dead | extend."""

    verb: str
    partition: int
    reservation: int
    nonce: int
    called: float
    returned: float
    items: int
    """How many items it was about; 0: unknown."""
    is_own: bool
    """It came from the client that was given the reservation."""


@attrs.frozen
class Production:
    """A produce call that was answered positively."""

    partition: int
    numbers: tuple[int, ...]
    payloads: tuple[bytes, ...]
    duplicates: int
    called: float
    returned: float


@attrs.frozen
class Push:
    """Items of a reservation that reached a client."""

    client: str
    partition: int
    reservation: int
    nonce: int
    items: tuple[int, ...]
    payloads: tuple[bytes, ...]
    attempts: tuple[int, ...]
    deadline: int
    """As shown to the client: server time, microseconds."""
    asked: float
    """When the reserve call was made; for a subscription: when it was opened."""
    received: float


@attrs.frozen
class Lease:
    """An item that a client of the HTTP calls was told it has."""

    client: str
    id: str
    """What it is called there; another one when it is ready again."""
    payload: bytes
    attempts: int
    called: float
    returned: float


@attrs.frozen
class Closing:
    """An HTTP call about a leased item that was answered positively: complete | retry | release | dead."""

    verb: str
    id: str
    payload: bytes
    called: float
    returned: float


@attrs.frozen
class Reading:
    """What a client was told of a partition's counters, as of a position."""

    client: str
    partition: int
    position: int
    """Of the record to come: what was before it is in the counters."""
    called: float
    returned: float


@attrs.frozen
class Hunger:
    """A client that had room and nothing to do, and whose connection stood all the time."""

    client: str
    queue: str
    since: float
    until: float


@attrs.define
class Observations:
    """Payloads are unique in a run, so they name items across produce and delivery."""

    attempted: dict[bytes, str] = attrs.Factory(dict)
    """Payload to queue: some client tried to produce it."""
    deduped: dict[bytes, str] = attrs.Factory(dict)
    """Payload to its dedupe key, of those that have one."""
    refused: dict[bytes, str] = attrs.Factory(dict)
    """Payload to the code of a definite refusal."""
    unsure: dict[bytes, None] = attrs.Factory(dict)
    """Payloads of calls that were not answered, or answered with "unknown"."""
    hungers: list[Hunger] = attrs.Factory(list)
    clients: int = 0
    """How many there were."""
    productions: list[Production] = attrs.Factory(list)
    pushes: list[Push] = attrs.Factory(list)
    settlements: list[Settlement] = attrs.Factory(list)
    leases: list[Lease] = attrs.Factory(list)
    closings: list[Closing] = attrs.Factory(list)
    beyond_limit: dict[bytes, None] = attrs.Factory(dict)
    """Payloads of items that were retried over HTTP, which does not look at the limit of attempts."""
    readings: list[Reading] = attrs.Factory(list)
    tokens: list[str] = attrs.Factory(list)
    """Of every reservation that anybody was given; hostile clients draw from them."""
    stolen: dict[tuple[int, int], None] = attrs.Factory(dict)
    """(partition, reservation) that a hostile client tried to settle."""
    forged_believed: list[str] = attrs.Factory(list)
    """Tokens that nobody was given, and that the server believed."""
    windows: list[str] = attrs.Factory(list)
    """Clients that were given more than they asked for."""

    @property
    def acknowledged(self) -> int:
        """Items whose production was acknowledged."""
        return sum(len(production.payloads) for production in self.productions)

    @property
    def delivered(self) -> int:
        """Items that reached somebody, with repetitions."""
        return sum(len(push.payloads) for push in self.pushes)
