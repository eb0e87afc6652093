"""What goes wrong in a run: each strikes once, and leaves everything mended.

Where chance would have to be lucky (a commit under way), the strike waits for the moment instead.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import attrs
import psycopg
import trio

from tests.blackbox.arena import Arena
from tests.blackbox.processes import until
from tests.blackbox.proxy import Proxy, Weather

Strike = Callable[[Arena], Awaitable[None]]


@attrs.frozen
class Fault:
    """``felt`` are events of the server's journal of which one at least must appear: else the fault was
    none. Empty: the strike itself knows that it struck."""

    name: str
    strike: Strike
    felt: tuple[str, ...] = ()


APPEND_FAILED = ("log.append.failed",)


@contextlib.contextmanager
def under(weather: Weather, proxy: Proxy, arena: Arena, told: str) -> Iterator[None]:
    """So it is between the two sides of a proxy for a while."""
    arena.tell(told)
    proxy.change(weather)
    try:
        yield
    finally:
        proxy.clear()


# --- The server ------------------------------------------------------------------------------------


async def kill_server(arena: Arena) -> None:
    """SIGKILL at any moment, and a new one on the same log."""
    await trio.sleep(arena.dice.uniform(0, 0.2))
    arena.tell("SIGKILL to the server")
    arena.server.kill()
    await arena.server.start_surely()


async def restart_server(arena: Arena) -> None:
    """SIGTERM, as a deployment does; it must end by itself and say that all is well."""
    arena.tell("SIGTERM to the server")
    code = await arena.server.stop()
    if code:
        raise AssertionError(f"the server stopped with {code}")
    await arena.server.start_surely()


async def pause_server(arena: Arena) -> None:
    """SIGSTOP, shorter than anybody's patience."""
    arena.tell("SIGSTOP to the server, for half a second")
    arena.server.signal(signal.SIGSTOP)
    await trio.sleep(0.5)
    arena.server.signal(signal.SIGCONT)


# --- Clients ---------------------------------------------------------------------------------------


async def kill_client(arena: Arena) -> None:
    """SIGKILL to a process of clients, and another one in its place."""
    victim = arena.dice.choice(arena.clients)
    arena.tell(f"SIGKILL to client {victim.name}")
    arena.kill_client(victim)
    arena.add_client()


async def pause_client(arena: Arena) -> None:
    """SIGSTOP to a process of clients, past its reservations' time."""
    victim = arena.dice.choice(arena.clients)
    arena.tell(f"SIGSTOP to client {victim.name}")
    victim.signal(signal.SIGSTOP)
    await trio.sleep(2.5)
    victim.signal(signal.SIGCONT)


async def cut_clients(arena: Arena) -> None:
    arena.tell(f"cut {arena.door.cut()} connections of clients")


async def swallow_clients(arena: Arena) -> None:
    """Half-open, one way or the other: what was sent never arrives, and nobody is told."""
    is_up = arena.dice.random() < 0.5
    weather = Weather(swallows_up=is_up, swallows_down=not is_up)
    with under(weather, arena.door, arena, f"bytes {'from' if is_up else 'to'} clients vanish"):
        await trio.sleep(0.7)


async def stand_still(arena: Arena) -> None:
    with under(Weather(stands_still=True), arena.door, arena, "nothing moves between clients and server"):
        await trio.sleep(0.7)


async def crumble(arena: Arena) -> None:
    """Byte by byte and slowly, also in the middle of a WebSocket frame."""
    slow = Weather(crumbs=True, delay=0.01)
    with under(slow, arena.door, arena, "bytes between clients and server come one by one"):
        await arena.more(100, 100)


# --- PostgreSQL: processes -------------------------------------------------------------------------


async def kill_backend(arena: Arena) -> None:
    """SIGKILL to a backend that is at a commit: the whole PostgreSQL restarts."""
    async with sleeping_commits(arena, 2.0) as asleep:
        pid = await asleep()
        arena.tell(f"SIGKILL to backend {pid}, at its commit")
        os.kill(pid, signal.SIGKILL)
    await trio.to_thread.run_sync(arena.postgres.wait_ready)


async def terminate_backends(arena: Arena) -> None:
    """pg_terminate_backend to all, one of them at a commit."""
    async with sleeping_commits(arena, 2.0) as asleep:
        pid = await asleep()
        arena.tell(f"pg_terminate_backend to all, with {pid} at its commit")
        ask(
            arena,
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid()",
        )


async def stop_backend(arena: Arena) -> None:
    """SIGSTOP to a backend at a commit; it goes on a second later."""
    async with sleeping_commits(arena, 0.2) as asleep:
        pid = await asleep()
        arena.tell(f"SIGSTOP to backend {pid}, at its commit")
        os.kill(pid, signal.SIGSTOP)
    await trio.sleep(1.0)
    os.kill(pid, signal.SIGCONT)


async def stop_at_once(arena: Arena) -> None:
    """pg_ctl stop -m immediate."""
    await trio.sleep(arena.dice.uniform(0, 0.1))
    arena.tell("immediate stop of PostgreSQL")
    await trio.to_thread.run_sync(arena.postgres.stop, signal.SIGQUIT)
    await _start_again(arena)


async def kill_postgres(arena: Arena) -> None:
    """SIGKILL to the postmaster and every child."""
    await trio.sleep(arena.dice.uniform(0, 0.1))
    arena.tell("SIGKILL to all of PostgreSQL")
    await trio.to_thread.run_sync(arena.postgres.kill)
    await _start_again(arena)


async def _start_again(arena: Arena) -> None:
    """When it was missed."""
    failed = APPEND_FAILED[0]
    before = arena.server.events()[failed]
    await until("an append fails", lambda: arena.server.events()[failed] > before)
    await trio.sleep(arena.dice.choice((0.0, 0.3)))
    # From this thread: PostgreSQL is made to end with the thread that started it.
    arena.postgres.launch()
    await trio.to_thread.run_sync(arena.postgres.wait_ready)


# --- PostgreSQL: the link --------------------------------------------------------------------------


async def cut_in_commit(arena: Arena) -> None:
    """The socket is cut while a backend commits, and the commit lands a moment later."""
    async with sleeping_commits(arena, 0.5) as asleep:
        pid = await asleep()
        arena.tell(f"cut {arena.link.cut()} connections to PostgreSQL, with {pid} at its commit")
    await until(f"backend {pid} has committed", lambda: not backends(arena, f"pid = {pid}"))


async def swallow_answers(arena: Arena) -> None:
    """What PostgreSQL answers vanishes: commits that nobody hears of. Then the connections end."""
    with under(Weather(swallows_down=True), arena.link, arena, "answers of PostgreSQL vanish"):
        await until("an answer vanishes", lambda: arena.link.holes > 0)
        await trio.sleep(0.5)


async def crumble_link(arena: Arena) -> None:
    slow = Weather(crumbs=True, delay=0.005)
    with under(slow, arena.link, arena, "bytes between server and PostgreSQL come one by one"):
        await arena.more(100, 100)


# --- PostgreSQL: replication -----------------------------------------------------------------------


async def cancel_replication_wait(arena: Arena) -> None:
    """A standby that is not there is waited for, and an operator cancels the wait: committed here, maybe
    nowhere else. Nothing may be acknowledged from then on, until the wait can be done with."""

    async def configured(standbys: str) -> None:
        ask(arena, f"alter system set synchronous_standby_names = '{standbys}'")
        ask(arena, "select pg_reload_conf()")
        await until(
            "the setting is read", lambda: ask(arena, "show synchronous_standby_names") == [(standbys,)]
        )

    waits = "wait_event = 'SyncRep'"
    await configured("nobody")
    try:
        arena.tell("commits wait for a standby that is not there")
        await until("a commit waits", lambda: bool(backends(arena, waits)))
        acknowledged = await arena.wait_still()
        for _ in range(2):
            await until("a commit waits", lambda: bool(backends(arena, waits)))
            cancelled = ask(arena, f"select pg_cancel_backend(pid) from pg_stat_activity where {waits}")  # noqa: S608
            arena.tell(f"pg_cancel_backend to {len(cancelled)} that waited")
            await until("another commit waits", lambda: bool(backends(arena, waits)))
        if await arena.wait_still() != acknowledged:
            raise AssertionError("acknowledged though no standby has it")
    finally:
        await configured("")


# --- Looking into PostgreSQL -----------------------------------------------------------------------

SLEEPS_AT_COMMIT = """
    create table if not exists public.sleeps (seconds float8 not null);
    create or replace function public.sleep_at_commit() returns trigger language plpgsql security definer as
        $$ begin perform pg_sleep(seconds) from public.sleeps; return null; end $$;
    do $$ begin
        if not exists (select from pg_trigger where tgname = 'sleep_at_commit') then
            create constraint trigger sleep_at_commit after insert on querator.log_1
                deferrable initially deferred for each row execute function public.sleep_at_commit();
        end if;
    end $$;
"""


@contextlib.asynccontextmanager
async def sleeping_commits(arena: Arena, seconds: float) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Commits take so many seconds; what it gives waits for a backend that is at one, for its number.
    Afterwards they are quick again."""

    async def asleep() -> int:
        await until("a backend is at a commit", lambda: bool(backends(arena, "wait_event = 'PgSleep'")))
        return backends(arena, "wait_event = 'PgSleep'")[0]

    def are_quick() -> bool:
        try:
            ask(arena, "delete from public.sleeps")
        except psycopg.OperationalError:
            return False
        return True

    ask(arena, SLEEPS_AT_COMMIT)
    ask(arena, f"insert into public.sleeps values ({seconds})")  # noqa: S608
    try:
        yield asleep
    finally:
        await until("commits are quick again", are_quick)


def ask(arena: Arena, statement: str) -> list[tuple[object, ...]]:
    """Run it as the superuser, past all proxies; its rows."""
    with arena.postgres.admin(arena.database) as admin:
        cursor = admin.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def backends(arena: Arena, condition: str) -> list[int]:
    """Process numbers of the server's backends of which it is true."""
    ours = "datname = current_database() and pid <> pg_backend_pid()"
    rows = ask(arena, f"select pid from pg_stat_activity where {ours} and {condition}")  # noqa: S608
    return [int(str(pid)) for (pid,) in rows]


POSTGRES_FAULTS = (
    Fault("server killed", kill_server),
    Fault("backend killed in commit", kill_backend, APPEND_FAILED),
    Fault("backends terminated in commit", terminate_backends, APPEND_FAILED),
    Fault("immediate stop", stop_at_once, APPEND_FAILED),
    Fault("PostgreSQL killed", kill_postgres, APPEND_FAILED),
    Fault("socket cut in commit, which lands", cut_in_commit, APPEND_FAILED),
    Fault("replication wait cancelled", cancel_replication_wait, APPEND_FAILED),
    Fault("backend stopped in commit", stop_backend),
    Fault("answers of PostgreSQL lost", swallow_answers, APPEND_FAILED),
    Fault("link to PostgreSQL in crumbs", crumble_link),
)
CLIENT_FAULTS = (
    Fault("clients cut", cut_clients),
    Fault("half-open clients", swallow_clients),
    Fault("clients' link stands still", stand_still),
    Fault("clients' link in crumbs", crumble),
    Fault("client killed", kill_client),
    Fault("client paused", pause_client),
)
SERVER_FAULTS = (
    Fault("server killed", kill_server),
    Fault("server restarted", restart_server),
    Fault("server paused", pause_server),
)
