"""Puts the commands together, runs one, and makes words and exit codes of what went wrong."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import trio
from cyclopts import App
from cyclopts.exceptions import CycloptsError

from querator import __version__
from querator.cli.exits import CommandFailed, Exit, exit_code_of
from querator.cli.output import complain
from querator.errors import QueratorError

HELP: Final = """An event-sourced reservation queue.

A first look: `querator serve` in one terminal, then in another
`querator queues create mail`, `echo hello | querator produce mail`, `querator consume mail`.

Settings come from flags, then QUERATOR_* variables, then querator.toml, then defaults; see
`querator config show --origin`. Exit codes and examples: docs/CLI.md."""


COMMANDS: Final = {
    "serve": ("querator.cli.serve:serve", "Run a server."),
    "queues": ("querator.cli.queues:app", "Create, look at and change queues."),
    "produce": ("querator.cli.produce:produce", "Append lines, JSON documents or files to a queue."),
    "consume": ("querator.cli.consume:consume", "Take items: print them, or run a command for each."),
    "stats": ("querator.cli.stats:stats", "A queue's counters, once or live."),
    "item": ("querator.cli.items:item_app", "One item, and its history."),
    "dead": ("querator.cli.items:dead_app", "Items that will not be tried again, until redriven."),
    "partitions": ("querator.cli.partitions:app", "What an operator does with single partitions."),
    "log": ("querator.cli.logs:app", "Read and check the log of a server that is not running."),
    "replay": ("querator.cli.replaying:replay", "Decide a log or a capture again, and compare."),
    "simulate": ("querator.cli.simulating:simulate", "What if? Recorded traffic under another policy."),
    "at": ("querator.cli.past:at", "A queue as it was at a time, or behind a record."),
    "diff": ("querator.cli.past:diff", "What became of a queue between two moments."),
    "analytics": (
        "querator.cli.analytics:app",
        "Export the log, and ask everything about a queue's history.",
    ),
    "db": ("querator.cli.db:app", "The PostgreSQL schema: install, upgrade, verify, or print it."),
    "config": ("querator.cli.settings:app", "The settings that count here, and where they come from."),
}
"""Where each is, and what it is for."""


def make_app(*, is_overview: bool = False) -> App:
    """All commands. ``is_overview``: they are to be listed, without being loaded."""
    app = App(
        name="querator",
        help=HELP,
        help_format="markdown",
        version=__version__,
        version_flags=["--version"],
        suppress_keyboard_interrupt=False,
    )
    # By name, loaded when asked for: a producer needs no server, and should not wait for one to load.
    for name, (where, purpose) in COMMANDS.items():
        app.command(where, name=name, **({"help": purpose} if is_overview else {}))
    return app


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's arguments) names."""
    # The parser takes a lone hyphen for an option; as a path it means standard input.
    tokens = ["/dev/stdin" if word == "-" else word for word in (sys.argv[1:] if argv is None else argv)]
    app = make_app(is_overview=not tokens or tokens[0] not in COMMANDS)
    try:
        command, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        complain(f"{_one_line(error)}; `querator {_path(app, tokens)}--help` shows what there is")
        return Exit.USAGE
    try:
        return _run_command(command, bound.args, bound.kwargs)
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not try to flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.OK
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except QueratorError as error:
        if str(error):
            complain(str(error))
        return exit_code_of(error)
    except OSError as error:
        complain(str(error) if error.filename is None else f"{error.filename}: {error.strerror}")
        return Exit.FAILED


def _run_command(command: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    result: Any
    if _is_async(command):
        # A failure in a task of a command comes out of its nursery in a group.
        with _unwrapped():
            result = trio.run(_run_interruptibly, command, args, kwargs)
    else:
        result = command(*args, **kwargs)
    return result if isinstance(result, int) else Exit.OK


async def _run_interruptibly(
    command: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Ctrl-C and SIGTERM cancel the command, which then leaves in order; a second one kills it."""
    if command.__module__ == "querator.cli.serve":
        # It has an orderly end of its own.
        return await command(*args, **kwargs)
    code = 0

    async def watch(scope: trio.CancelScope) -> None:
        nonlocal code
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if code:
                    # Not even the orderly way out ends.
                    signal.signal(number, signal.SIG_DFL)
                    signal.raise_signal(number)
                code = 128 + number
                scope.cancel()

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(watch, scope)
        result = None
        with scope:
            result = await command(*args, **kwargs)
        nursery.cancel_scope.cancel()
    if code and result is None:
        raise CommandFailed("", Exit(code))
    return result


@contextmanager
def _unwrapped() -> Iterator[None]:
    try:
        yield
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and _are_one(inner.exceptions):
            inner = inner.exceptions[0]
        raise inner from None


def _are_one(errors: Sequence[BaseException]) -> bool:
    """Whether several tasks were told the same."""
    return len({(type(error), str(error)) for error in errors}) == 1


def _is_async(command: Callable[..., Any]) -> bool:
    return bool(getattr(command, "__code__", None) and command.__code__.co_flags & 0x80)


def _one_line(error: CycloptsError) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _path(app: App, tokens: Sequence[str]) -> str:
    """The command that was meant, as far as there is one."""
    chain, _, _ = app.parse_commands(list(tokens))
    return "".join(f"{name} " for name in chain)


if __name__ == "__main__":
    sys.exit(run())
