"""The SQLite log keeps the contract."""

from pathlib import Path

import pytest

from tests.log.log_contract import LogContract, LogHarness
from tests.log.sqlite_harness import SqliteHarness


class TestSqliteLog(LogContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> LogHarness:
        return SqliteHarness(tmp_path / "data")
