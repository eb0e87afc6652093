"""``querator serve``: from settings to a running server, and down again in order."""

import signal
import sys

import trio

from querator import telemetry
from querator.app import Application, serve
from querator.config import Config
from querator.env.real import real_env
from querator.errors import QueratorError
from querator.journal import write_journal

INTERRUPTED = 130
"""Exit code after a second signal: the server stopped without draining."""


def run_server(config: Config) -> int:
    """Serve until SIGINT or SIGTERM, then drain; a second signal stops at once. The exit code."""
    config.check_together()
    stop_journal = write_journal(config.log_level, config.log_format)
    try:
        return trio.run(_serve, config)
    finally:
        stop_journal()


async def _serve(config: Config) -> int:
    code = 0
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def watch_signals(task_status: trio.TaskStatus[None]) -> None:
            nonlocal code
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for number in signals:
                    if stop.is_set():
                        code = INTERRUPTED
                        nursery.cancel_scope.cancel()
                        return
                    telemetry.emit("server.draining", signal=signal.Signals(number).name)
                    stop.set()

        await nursery.start(watch_signals)
        try:
            await serve(config, real_env(), _announce, stop)
        except* OSError as group:
            raise QueratorError(f"address: can't listen on {config.address}: {_first(group)}") from group
        except* QueratorError as group:
            raise _first(group) from None
        nursery.cancel_scope.cancel()
    return code


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _announce(application: Application) -> None:
    telemetry.emit("server.listening", address=application.address)
    sys.stdout.write(f"Querator listens on {application.address}\n")
    sys.stdout.flush()
