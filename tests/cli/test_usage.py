"""The command line itself: help, mistakes, exit codes."""

from pathlib import Path

import pytest

import querator
from querator.cli.exits import CommandFailed, Exit, UsageError, exit_code_of
from querator.cli.main import COMMANDS
from querator.client import Disconnected, OutcomeUnknown, Rejected, ReservationLost
from querator.errors import ConfigError, CorruptRecord, LogUnavailable, StoreLocked
from tests.cli.conftest import Run


def test_the_overview_says_what_there_is(cli: Run) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        done = cli(*arguments)
        assert done.code == 0
        for name in COMMANDS:
            assert f" {name} " in done.out


def test_the_version(cli: Run) -> None:
    done = cli("--version")
    assert (done.code, done.out.strip()) == (0, querator.__version__)


@pytest.mark.parametrize("command", [*COMMANDS, "queues create", "dead redrive", "item trace", "log verify"])
def test_every_command_has_help(cli: Run, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: querator {command}")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("produce", ["QUERATOR_ADDRESS", "QUERATOR_API_KEY"]),
        ("queues list", ["QUERATOR_ADDRESS", "QUERATOR_API_KEY"]),
        ("serve", ["QUERATOR_ADDRESS", "QUERATOR_DATA", "QUERATOR_LOG", "QUERATOR_PAYLOAD_MEMORY"]),
        ("log verify", ["QUERATOR_DATA", "QUERATOR_LOG"]),
        ("consume", ["QUERATOR_ITEM", "QUERATOR_ATTEMPT"]),
    ],
)
def test_help_names_the_variables(cli: Run, command: str, names: list[str]) -> None:
    out = "".join(cli(*command.split(), "--help").out.replace("│", "").split())
    for name in names:
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bogus"], ["bogus", "querator --help"]),
        (["queues", "bogus"], ["bogus", "querator queues --help"]),
        (["queues", "create"], ["--name", "querator queues create --help"]),
        (["produce"], ["QUEUE"]),
        (["produce", "q", "--bogus"], ["--bogus"]),
        (["consume", "q", "--max", "many"], ["--max", "many"]),
        (["consume", "q", "--max", "0"], ["--max", "1 to"]),
        (["consume", "q", "--jobs", "0"], ["--jobs", "1 to"]),
        (["consume", "q", "--batch", "1001"], ["--batch", "1000"]),
        (["consume", "q", "--window", "99999"], ["--window", "16384"]),
        (["consume", "q", "--exec", "cat", "--json"], ["--exec", "--json"]),
        (["consume", "q", "--reconnect-timeout", "soon"], ["--reconnect-timeout", "soon", "30s"]),
        (["produce", "q", "--batch", "0"], ["--batch"]),
        (["produce", "q", "--jsonl", "--files"], ["--jsonl", "--files"]),
        (["produce", "q", "--delay", "1s", "--at", "2030-01-01T00:00:00Z"], ["--delay", "--at"]),
        (["produce", "q", "--at", "noon"], ["--at", "ISO 8601"]),
        (["produce", "q", "/no/such/file"], ["/no/such/file", "cannot be read"]),
        (["queues", "create", "q", "--reservation-timeout", "x"], ["--reservation-timeout", "'x'"]),
        (["queues", "create", "q", "--ordering", "random"], ["--ordering", "fifo"]),
        (["queues", "create", "q", "--backoff-factor", "3"], ["--backoff-base"]),
        (["queues", "update", "q"], ["nothing to change"]),
        (["queues", "delete", "q"], ["--yes"]),
        (["queues", "clear", "q", "--yes"], ["--ready"]),
        (["queues", "clear", "q", "--dead"], ["--yes"]),
        (["item", "trace", "seventeen"], ["seventeen", "PARTITION.NUMBER"]),
        (["item", "trace", "1.0"], ["1.0"]),
        (["dead", "list", "q", "--limit", "-1"], ["--limit"]),
        (["dead", "redrive", "q", "x.y"], ["x.y"]),
        (["dead", "redrive", "q", "--from", "mail"], ["--from", "--home"]),
        (["dead", "redrive", "q", "--home", "--reason", "x"], ["--reason"]),
        (["log", "verify", "--data", "/no/such/directory"], ["/no/such/directory", "--data"]),
        (["log", "verify", "--log", "memory"], ["memory"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(cli: Run, arguments: list[str], words: list[str]) -> None:
    done = cli(*arguments)
    assert done.code == Exit.USAGE
    assert done.out == ""
    assert done.err.startswith("error: ")
    for word in words:
        assert word in done.err


def test_no_server_is_told_soon(cli: Run) -> None:
    done = cli("queues", "list", "--address", "127.0.0.1:1")
    assert done.code == Exit.UNAVAILABLE
    assert "no server answers at 127.0.0.1:1: Connection refused" in done.err


def test_a_wrong_setting_names_where_it_was_set(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUERATOR_ADDRESS", "nonsense")
    done = cli("queues", "list")
    assert done.code == Exit.CONFIG
    assert "QUERATOR_ADDRESS" in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("denied", "no"), 3),
        (OutcomeUnknown("?"), 4),
        (ReservationLost("deadline"), 5),
        (Disconnected("gone"), 69),
        (UsageError("what"), 2),
        (CommandFailed("", Exit.DATA), 65),
        (StoreLocked("held"), 73),
        (CorruptRecord("bad"), 65),
        (ConfigError("setting"), 78),
        (LogUnavailable("later"), 1),
        (OSError("disk"), 1),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code_of(error) == code


@pytest.mark.parametrize("data", ["a-file", "a-file/below"])
def test_a_data_directory_that_cannot_be_is_named_as_the_fault(cli: Run, tmp_path: Path, data: str) -> None:
    (tmp_path / "a-file").write_text("no directory")
    refused = cli("serve", "--data", str(tmp_path / data), "--address", "127.0.0.1:0")
    assert refused.code == 78
    assert refused.err.startswith(f"error: data: {tmp_path / data} can't be used: ")
    assert "--data" in refused.err
