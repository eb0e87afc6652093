"""What an answer says about its commit (RELIABILITY: R1). Only severity ERROR means: not written."""

import pytest

from querator.log.postgres.classify import Answer, Meaning, classify

SYNC_CANCELLED = "01000 canceling wait for synchronous replication due to user request"

TABLE = {
    "rows and silence": (Answer(True), Meaning.COMMITTED),
    "rows and a warning": (Answer(True, notices=(SYNC_CANCELLED,)), Meaning.UNKNOWN),
    "rows and any notice": (Answer(True, notices=("00000 by the way",)), Meaning.UNKNOWN),
    "unique violation": (Answer(False, "ERROR", "23505"), Meaning.NOT_WRITTEN),
    "disk full": (Answer(False, "ERROR", "53100"), Meaning.NOT_WRITTEN),
    "disk full of the write-ahead log": (Answer(False, "PANIC", "53100"), Meaning.UNKNOWN),
    "cancelled": (Answer(False, "ERROR", "57014"), Meaning.NOT_WRITTEN),
    "lock timeout": (Answer(False, "ERROR", "55P03"), Meaning.NOT_WRITTEN),
    "serialization": (Answer(False, "ERROR", "40001"), Meaning.NOT_WRITTEN),
    "deadlock": (Answer(False, "ERROR", "40P01"), Meaning.NOT_WRITTEN),
    "read only": (Answer(False, "ERROR", "25006"), Meaning.NOT_WRITTEN),
    "terminated": (Answer(False, "FATAL", "57P01"), Meaning.UNKNOWN),
    "idle in transaction": (Answer(False, "FATAL", "25P03"), Meaning.UNKNOWN),
    "fsync failed": (Answer(False, "PANIC", "58030"), Meaning.UNKNOWN),
    "input/output error of one statement": (Answer(False, "ERROR", "58030"), Meaning.NOT_WRITTEN),
    "connection lost": (Answer(False, message="server closed the connection"), Meaning.UNKNOWN),
    "connection lost after the rows": (Answer(False, None, None), Meaning.UNKNOWN),
    "a code without a severity": (Answer(False, None, "40001"), Meaning.UNKNOWN),
    "a severity of another language": (Answer(False, "FEHLER", "23505"), Meaning.UNKNOWN),
    "completed, and yet an error": (Answer(True, "FATAL", "57P01"), Meaning.UNKNOWN),
    "an error and a warning": (Answer(False, "ERROR", "23505", notices=(SYNC_CANCELLED,)), Meaning.UNKNOWN),
    "own deadline": (Answer(False, deadline_passed=True), Meaning.UNKNOWN),
    "own deadline, whatever else": (Answer(False, "ERROR", "57014", deadline_passed=True), Meaning.UNKNOWN),
}


@pytest.mark.parametrize("case", TABLE)
def test_classification(case: str) -> None:
    answer, meaning = TABLE[case]
    assert classify(answer) is meaning
