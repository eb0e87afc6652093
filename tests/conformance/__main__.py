"""``python -m tests.conformance --control 127.0.0.1:PORT [--log memory|sqlite|postgres://…]``."""

import argparse
import signal
from functools import partial

import trio

from querator.env.real import real_env
from tests.conformance.control import serve_connection
from tests.conformance.host import Host
from tests.conformance.storage import open_storage


async def serve(host: str, port: int, log: str) -> None:
    """Take orders until SIGINT or SIGTERM."""
    env = real_env()
    async with open_storage(log, env) as storage, trio.open_nursery() as nursery:
        orders = Host(env, storage, nursery)

        await orders.warm_up()

        async def connection(stream: trio.SocketStream) -> None:
            await serve_connection(stream, orders.order)

        listeners = await nursery.start(partial(trio.serve_tcp, connection, port, host=host))
        print(f"control {host}:{listeners[0].socket.getsockname()[1]}", flush=True)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--control", default="127.0.0.1:0", metavar="HOST:PORT", help="where orders are taken"
    )
    parser.add_argument("--log", default="memory", help="memory, sqlite or postgres://…")
    arguments = parser.parse_args()
    host, _, port = arguments.control.rpartition(":")
    trio.run(serve, host or "127.0.0.1", int(port), arguments.log)


main()
