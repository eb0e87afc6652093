"""The examples do what they say, twice in a row on one server."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE, Served

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("hello", ["Hello, world!"]),
        ("workers", ["order 3, attempt 3", "dead: order 7 (no such customer)"]),
        ("saga", ["): done", "undo book flight", "): undone"]),
    ],
)
def test_an_example(server: Served, example: str, words: list[str], again: bool) -> None:
    del again
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py"), server.address],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in words:
        assert word in done.stdout
