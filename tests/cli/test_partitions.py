"""A log that was put back to how it was: the partition halts, and goes on when an operator says so."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Served, start, stop

WITNESS = "witness.json"


@pytest.fixture
def data(tmp_path: Path, cli: Run) -> Path:
    """A server's directory whose log is of yesterday, and whose witness is not."""
    directory, copy = tmp_path / "data", tmp_path / "copy"
    for line in (b"kept\n", b"lost\n"):
        served = start("--data", str(directory))
        try:
            cli("queues", "create", "q", "--exist-ok", "--address", served.address)
            assert cli("produce", "q", "--address", served.address, stdin=line).code == 0
        finally:
            stop(served)
        if not copy.exists():
            shutil.copytree(directory, copy)
    shutil.copy(directory / WITNESS, copy / WITNESS)
    return copy


@pytest.fixture
def halted(data: Path, cli: Run) -> Iterator[Served]:
    """The catalog's part of it was accepted, so that a server starts; the partition's was not."""
    refused = cli("serve", "--data", str(data), "--address", "127.0.0.1:0")
    assert refused.code == 65
    assert "had been acknowledged" in refused.err
    assert "`querator log accept-loss 0 --yes`" in refused.err
    assert cli("log", "accept-loss", "0", "--data", str(data)).code == 2
    accepted = cli("log", "accept-loss", "0", "--yes", "--data", str(data), "--json")
    assert accepted.json[0]["accepted"] is True, accepted.err
    nothing = cli("log", "accept-loss", "0", "--yes", "--data", str(data))
    assert nothing.code != 0
    assert "no loss is suspected in partition 0" in nothing.err
    served = start("--data", str(data))
    yield served
    stop(served)


def test_an_operator_accepts_a_loss_and_the_log_tells(cli: Run, data: Path, halted: Served) -> None:
    at = ("--address", halted.address)
    refused = cli("consume", "q", "--max", "1", *at)
    assert refused.code != 0
    assert "had been acknowledged" in refused.err
    assert cli("partitions", "accept-loss", "1", *at).code == 2
    assert cli("partitions", "accept-loss", "1", "--yes", *at).code == 0
    again = cli("partitions", "accept-loss", "1", "--yes", *at)
    assert again.code != 0
    assert "no loss is suspected" in again.err
    assert cli("consume", "q", "--max", "1", *at).out == "kept\n"
    stop(halted)
    shown = cli("log", "show", "--data", str(data))
    assert shown.out.count("a suspected loss was accepted by") == 2
    assert cli("log", "verify", "--data", str(data)).code == 0
