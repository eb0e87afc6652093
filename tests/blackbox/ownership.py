"""Faults of who owns the log, with two servers on one database; and a watch over that only one ever does."""

import contextlib
import signal
from collections.abc import AsyncIterator

import attrs
import trio

from tests.blackbox.arena import Arena
from tests.blackbox.faults import Fault
from tests.blackbox.processes import Server, until

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
    """SIGSTOP, past its lease; the other one takes over and work goes on; then the first wakes up, and must
    notice that it is not the owner any more."""
    old = await owner(arena)
    arena.tell(f"SIGSTOP to {old.name}, the owner")
    stepped_down = old.events()["node.stepped_down"]
    old.signal(signal.SIGSTOP)
    new = await wait_followed(arena, old)
    await arena.more()
    arena.tell(f"SIGCONT to {old.name}")
    old.signal(signal.SIGCONT)
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
)
