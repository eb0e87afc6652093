"""A functional suite from outside: it speaks HTTP to the host's process and knows nothing of the server.

Organised as the contract is; in the mind of somebody who tests another implementation with a Go client.
Runs on each kind of log: all of it in memory, on SQLite and PostgreSQL what is marked ``every_log``, and the
rest with ``--long``.
"""
