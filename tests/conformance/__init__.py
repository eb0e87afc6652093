"""The conformance host: many logical servers in one process, for functional suites from outside.

``python -m tests.conformance --control 127.0.0.1:PORT [--log memory|sqlite|postgres://…]``

The code that answers is production's, from the port to the log; what is the host's own is the clock,
which a suite may freeze and advance, and the calls on the control port (host.py).
"""
