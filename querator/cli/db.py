"""``querator db``: the PostgreSQL schema, put there, brought up to date and looked at."""

from typing import Annotated

import attrs
from cyclopts import App, Parameter

from querator import config
from querator.cli.exits import CommandFailed, Exit, UsageError
from querator.cli.output import note, print_json, print_text
from querator.core.stores import choose, parse_stores
from querator.env.real import real_env
from querator.errors import LogUnavailable
from querator.log.postgres import migrate
from querator.log.postgres.checks import all_faults, read_facts
from querator.log.postgres.connection import connect

app = App(name="db", help="The PostgreSQL schema: install, upgrade, verify, or print it.")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Database:
    """Which database."""

    log: Annotated[
        str | None,
        Parameter(
            help="postgresql://USER@HOST/DB; what is missing comes from PGHOST and the like. "
            "[env: QUERATOR_LOG, QUERATOR_LOG_FILE]"
        ),
    ] = None
    store: Annotated[str | None, Parameter(help="Which store, where there are several; else the first.")] = (
        None
    )
    json: Annotated[bool, Parameter(negative="", help="Print JSON, one document.")] = False

    def conninfo(self) -> str:
        """Raises:
        UsageError: the log is not in PostgreSQL.
        """
        log = str(config.load({"log": self.log}).config.log)
        try:
            chosen = choose(parse_stores(log), self.store)
        except ValueError as error:
            raise UsageError(f"store: {error}") from error
        if not chosen.is_postgres:
            raise UsageError("log: name the database, --log postgresql://USER@HOST/DB")
        return chosen.log


Role = Annotated[
    str | None,
    Parameter(help="Give this role what a server needs, and no more. It must exist."),
]


@app.command
def install(*, database: Database | None = None, role: Role = None) -> None:
    """Put the schema into a database that has none, as a role that may create one.

    Safe to repeat: what is there already stays. A server then connects as ROLE, which can add to the log and
    read it, and cannot change or remove any of it.
    """
    _apply(database or Database(), role, post=True)


@app.command
def upgrade(
    *,
    database: Database | None = None,
    role: Role = None,
    pre: Annotated[
        bool,
        Parameter(negative="", help="Only what the version before can live with; run `upgrade` again later."),
    ] = False,
) -> None:
    """Bring the schema up to this version."""
    _apply(database or Database(), role, post=not pre)


@app.command
async def verify(*, database: Database | None = None) -> int:
    """Say whether a server would accept this database, role and server, and if not, what to do."""
    database = database or Database()
    connection = await connect(database.conninfo(), real_env())
    try:
        facts = await read_facts(connection)
        faults = await all_faults(connection)
    finally:
        connection.close()
    if database.json:
        print_json(
            {
                "server_version": facts.version,
                "role": facts.role,
                "faults": [attrs.asdict(fault) for fault in faults],
            }
        )
    elif not faults:
        print_text(f"fine: PostgreSQL {facts.version // 10_000}, role {facts.role}")
    else:
        for fault in faults:
            print_text(str(fault))
    return Exit.CONFIG if faults else Exit.OK


@app.command
def sql(
    *,
    pre: Annotated[bool, Parameter(negative="", help="Only what the version before can live with.")] = False,
) -> None:
    """Print all migrations as one script, for those who run SQL by other means; the same every time."""
    print_text(migrate.script(post=not pre))


def _apply(database: Database, role: str | None, *, post: bool) -> None:
    conninfo = database.conninfo()
    try:
        applied = migrate.install(conninfo, role=role, post=post)
    except LogUnavailable as error:
        raise CommandFailed(str(error), Exit.UNAVAILABLE) from error
    if database.json:
        print_json({"applied": [one.name for one in applied], "role": role})
        return
    for one in applied:
        note(f"applied {one.name}")
    if not applied:
        note("the schema is up to date")
    if role is not None:
        note(f"role {role} has what a server needs")
