"""Faults of who owns the log, with two servers on one database; and a watch over that only one ever does."""

import contextlib
import signal
from collections.abc import AsyncIterator

import attrs
import trio

from querator.core.limits import NODE_RENEWAL
from querator.env import seconds
from tests.blackbox.arena import Arena
from tests.blackbox.faults import Fault
from tests.blackbox.processes import Server, until
from tests.blackbox.proxy import Weather

STANDS_BY = "stands by"
"""What a server's health document says of one that does not own."""


async def owns(server: Server) -> bool:
    """By its own account; one that is stopped or gone says nothing."""
    health = await server.health() if server.is_running else None
    return health is not None and health[0] == 200 and STANDS_BY not in health[1]


async def owner(arena: Arena) -> Server:
    """The one that owns."""
    found: list[Server] = []

    async def is_found() -> bool:
        for server in arena.servers:
            if await owns(server):
                found.append(server)
                return True
        return False

    await until("some server owns", is_found)
    return found[0]


def other(arena: Arena, server: Server) -> Server:
    (found,) = [one for one in arena.servers if one is not server]
    return found


async def wait_followed(arena: Arena, old: Server) -> Server:
    """Wait until the other one owns."""
    new = other(arena, old)
    started = trio.current_time()
    await until(f"{new.name} owns", lambda: owns(new))
    arena.tell(f"{new.name} owns after {trio.current_time() - started:.1f} s")
    return new


async def kill_owner(arena: Arena) -> None:
    """SIGKILL; the other one takes over; the killed one comes back, and stands by."""
    old = await owner(arena)
    arena.tell(f"SIGKILL to {old.name}, the owner")
    old.kill()
    new = await wait_followed(arena, old)
    await old.start_surely()
    await must_own_alone(arena, new)


async def drain_owner(arena: Arena) -> None:
    """SIGTERM: clients are sent to the other one, which need not wait for a lease to end."""
    old = await owner(arena)
    arena.tell(f"SIGTERM to {old.name}, the owner")
    code = await old.stop()
    if code:
        raise AssertionError(f"the owner stopped with {code}")
    new = await wait_followed(arena, old)
    await old.start_surely()
    await must_own_alone(arena, new)


async def freeze_owner(arena: Arena) -> None:
    """SIGSTOP, past its lease, with an append under way in the network; the other one takes over and work
    goes on; then that append arrives. Last the first one wakes up, and must notice that it is not the owner
    any more."""
    old = await owner(arena)
    link = arena.place_of(old).link
    arena.tell(f"SIGSTOP to {old.name}, the owner, and an append of it is held up")
    stepped_down = old.events()["node.stepped_down"]
    link.change(Weather(stands_still=True))
    await until("an append is under way", lambda: link.held_up > 0)
    old.signal(signal.SIGSTOP)
    new = await wait_followed(arena, old)
    await arena.more()
    arena.tell("the append arrives")
    link.clear()
    await arena.more()
    arena.tell(f"SIGCONT to {old.name}")
    old.signal(signal.SIGCONT)
    await until(f"{old.name} steps down", lambda: old.events()["node.stepped_down"] > stepped_down)
    await must_own_alone(arena, new)


async def isolate_owner(arena: Arena) -> None:
    """PostgreSQL is out of its reach for longer than its lease, while clients reach it all the time: they
    must find to the other one."""
    old = await owner(arena)
    link = arena.place_of(old).link
    # By then it knows who stands by: that is where it sends its clients.
    await trio.sleep(1.2 * seconds(NODE_RENEWAL))
    arena.tell(f"{old.name}, the owner, does not reach PostgreSQL")
    stepped_down = old.events()["node.stepped_down"]
    link.change(Weather(refuses=True))
    link.cut()
    new = await wait_followed(arena, old)
    await arena.more()
    link.clear()
    await until(f"{old.name} steps down", lambda: old.events()["node.stepped_down"] > stepped_down)
    await must_own_alone(arena, new)


async def must_own_alone(arena: Arena, server: Server) -> None:
    await until(f"{server.name} owns", lambda: owns(server))
    if await owns(other(arena, server)):
        raise AssertionError(f"{other(arena, server).name} says that it owns, as {server.name} does")


@attrs.define
class Watch:
    """What a watcher saw."""

    looks: int = 0
    both: list[str] = attrs.field(factory=list)


@contextlib.asynccontextmanager
async def watching(arena: Arena) -> AsyncIterator[Watch]:
    """Ask the servers all the while. One that says it owns before and after another one says so is one too
    many; a single look at each proves nothing, since ownership may have passed between the two."""
    watch = Watch()

    async def look() -> None:
        while True:
            for one in arena.servers:
                two = other(arena, one)
                if await owns(one) and await owns(two) and await owns(one):
                    watch.both.append(f"{one.name} and {two.name} after {watch.looks} looks")
                watch.looks += 1
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        yield watch
        nursery.cancel_scope.cancel()


OWNERSHIP_FAULTS = (
    Fault("owner drained", drain_owner, ("node.took_over",)),
    Fault("owner killed", kill_owner, ("node.took_over",)),
    Fault("owner stopped past its lease", freeze_owner, ("node.took_over",)),
    Fault("owner cut off from PostgreSQL", isolate_owner, ("node.lapsed",)),
)
