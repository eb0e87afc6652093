"""``querator serve``."""

import signal
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from querator import config, telemetry
from querator.api.doorway import connections_within
from querator.app import Application, reload_tls
from querator.app import serve as serve_app
from querator.cli.exits import CommandFailed, Exit
from querator.cli.output import note, print_json
from querator.core import limits
from querator.env.real import allow_descriptors, real_env
from querator.errors import ConfigError, DataLossSuspected
from querator.journal import write_journal


async def serve(
    *,
    address: Annotated[
        str | None, Parameter(help="HOST:PORT to listen on (localhost:2319). [env: QUERATOR_ADDRESS]")
    ] = None,
    data: Annotated[
        Path | None,
        Parameter(help="The server's directory, made when missing (./querator-data). [env: QUERATOR_DATA]"),
    ] = None,
    log: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Where the log is: sqlite, memory or postgresql://USER@HOST/DB; several as "
            "NAME[:AFFINITY]=URL each. [env: QUERATOR_LOG, QUERATOR_LOG_FILE]",
        ),
    ] = None,
    advertise: Annotated[
        str | None,
        Parameter(
            help="HOST:PORT at which clients reach this node, if it is not its address. "
            "[env: QUERATOR_ADVERTISE]"
        ),
    ] = None,
    unsafe_durability: Annotated[
        bool | None,
        Parameter(
            negative="",
            help="Use a PostgreSQL that may lose acknowledged items in a crash. "
            "[env: QUERATOR_UNSAFE_DURABILITY]",
        ),
    ] = None,
    unsafe_role: Annotated[
        bool | None,
        Parameter(
            negative="",
            help="Connect to PostgreSQL as a role that could change history. [env: QUERATOR_UNSAFE_ROLE]",
        ),
    ] = None,
    auth: Annotated[
        bool | None, Parameter(help="Whether every request needs an API key. [env: QUERATOR_AUTH]")
    ] = None,
    insecure: Annotated[
        bool | None,
        Parameter(help="Listen beyond this machine without API keys. [env: QUERATOR_INSECURE]"),
    ] = None,
    tls_certificate: Annotated[
        Path | None, Parameter(help="PEM file: the certificate chain. [env: QUERATOR_TLS_CERTIFICATE]")
    ] = None,
    tls_key: Annotated[
        Path | None, Parameter(help="PEM file: the private key. [env: QUERATOR_TLS_KEY]")
    ] = None,
    origins: Annotated[
        str | None,
        Parameter(help="Web origins whose pages may open sessions, by commas. [env: QUERATOR_ORIGINS]"),
    ] = None,
    connections_per_address: Annotated[
        str | None,
        Parameter(
            help="Connections of one address, this machine's own not counted (2,048). "
            "[env: QUERATOR_CONNECTIONS_PER_ADDRESS]"
        ),
    ] = None,
    payload_memory: Annotated[
        str | None,
        Parameter(help="Bytes of waiting payloads kept in memory, as 256MiB. [env: QUERATOR_PAYLOAD_MEMORY]"),
    ] = None,
    record_inputs: Annotated[
        bool | None,
        Parameter(
            help="Record who waited and what was asked, for querator replay. [env: QUERATOR_RECORD_INPUTS]"
        ),
    ] = None,
    ping_interval: Annotated[
        str | None,
        Parameter(help="Seconds between two pings of a session (5). [env: QUERATOR_PING_INTERVAL]"),
    ] = None,
    export_interval: Annotated[
        str | None,
        Parameter(
            help="Seconds between two exports of the log for analytics (0: none). "
            "[env: QUERATOR_EXPORT_INTERVAL]"
        ),
    ] = None,
    log_retention: Annotated[
        str | None,
        Parameter(
            help="After which time history is dropped from the log, once exported, as 30d (0: never). "
            "[env: QUERATOR_LOG_RETENTION]"
        ),
    ] = None,
    log_level: Annotated[
        str | None, Parameter(help="debug, info, warning or error. [env: QUERATOR_LOG_LEVEL]")
    ] = None,
    log_format: Annotated[
        str | None, Parameter(help="auto, text or json. [env: QUERATOR_LOG_FORMAT]")
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="Say in JSON when the server is ready.")] = False,
) -> int:
    """Run a server until Ctrl-C or SIGTERM; clients are told, and what waits is answered.

    Without options it listens on localhost:2319 and keeps its data in ./querator-data.
    With TLS, SIGHUP makes it read the certificate and its key again.
    """
    loaded = config.load(
        {
            "address": address,
            "data": None if data is None else str(data),
            "log": None if log is None else " ".join(log),
            "advertise": advertise,
            "unsafe_durability": unsafe_durability,
            "unsafe_role": unsafe_role,
            "auth": auth,
            "insecure": insecure,
            "tls_certificate": None if tls_certificate is None else str(tls_certificate),
            "tls_key": None if tls_key is None else str(tls_key),
            "origins": origins,
            "connections_per_address": connections_per_address,
            "payload_memory": payload_memory,
            "record_inputs": record_inputs,
            "ping_interval": ping_interval,
            "export_interval": export_interval,
            "log_retention": log_retention,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    settings = loaded.config
    settings.check_together()
    if settings.sends_keys_in_the_clear:
        note(
            f"warning: clients of {settings.address} send their API keys without TLS; "
            "set tls_certificate and tls_key, or speak TLS in front of it"
        )
    stop_journal = write_journal(settings.log_level, settings.log_format)
    wanted = limits.CONNECTIONS_MAX + limits.DESCRIPTORS_BESIDE
    allowed = allow_descriptors(wanted)
    if allowed < wanted:
        telemetry.emit(
            "server.descriptors.unavailable",
            allowed=allowed,
            wanted=wanted,
            connections=connections_within(allowed),
        )
    env = real_env()

    serving: list[Application] = []

    def ready(application: Application) -> None:
        serving.append(application)
        if json:
            print_json({"address": application.address, "data": str(settings.data)})
        else:
            note(f"querator listens on {application.address}; data in {settings.data}; Ctrl-C stops it")

    async def watch(stop: trio.Event, scope: trio.CancelScope) -> None:
        # Where there is nothing to read again, a hangup ends the process as ever.
        reloads = () if settings.tls_certificate is None else (signal.SIGHUP,)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *reloads) as signals:
            async for number in signals:
                if number in reloads:
                    if serving:
                        _read_certificate_again(settings, serving[0])
                    continue
                if stop.is_set():
                    # The second one: whoever asks twice does not want to wait.
                    scope.cancel()
                stop.set()

    stop = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, stop, nursery.cancel_scope)
            await serve_app(settings, env, ready, stop, connections_max=connections_within(allowed))
            nursery.cancel_scope.cancel()
    except* OSError as group:
        raise _cannot_serve(settings, group) from group
    except* DataLossSuspected as lost:
        raise CommandFailed(_missing_end(lost), Exit.DATA) from lost
    finally:
        stop_journal()
    return Exit.OK


def _read_certificate_again(settings: config.Config, application: Application) -> None:
    try:
        reload_tls(settings, application)
    except ConfigError as error:
        telemetry.emit("server.certificate.refused", error=str(error))
    else:
        telemetry.emit("server.certificate.read", path=str(settings.tls_certificate))


def _missing_end(group: BaseExceptionGroup[DataLossSuspected]) -> str:
    """Of the catalog: what other partitions lack halts them, and the server starts."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (
        f"{error}: put back what is missing (the newest copy of the data directory, or the former primary); "
        "if it is gone for good, `querator log accept-loss 0 --yes` goes on without it"
    )


def _cannot_serve(settings: config.Config, group: BaseExceptionGroup[OSError]) -> CommandFailed:
    """What the system refused: a file has a name, an address has none."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.filename is not None:
        text = f"data: {settings.data} can't be used: {error.strerror}: {error.filename}"
        return CommandFailed(f"{text}; choose another with --data", Exit.CONFIG)
    text = f"address: cannot serve on {settings.address}: {error}; choose another with --address"
    return CommandFailed(text, Exit.FAILED)
