"""The log store on PostgreSQL 14 and later.

The way of an append::

    records ── store.py ──► append.sql (one autocommit statement: fence, chain, identity, verdicts)
                  │              │ connection.py: libpq on trio's readiness, own deadline
                  │              ▼
                  │         classify.py: committed / not written / unknown
                  ▼
        a verdict for each record

What keeps two owners apart is a unique key and nothing else: a record stands at (partition,
position) or another one does. Buckets are tables; the key spans them because only the newest one
takes records (migrations/0001_pre_log.sql says how the older ones are sealed). Nothing here
depends on the session: no session settings, no advisory lock (migrations excepted), and prepared
statements only where there is no pooler, so pgbouncer's transaction mode is fine.

What this package does not do: retry what failed (the actors do, with the same bytes), decide who
may claim (node.py only says who is alive), or watch for lost data (log/witness.py does).
"""

from querator.log.postgres.store import PostgresLog

__all__ = ["PostgresLog"]
