"""``simulate``: a capture in, a table, a page or JSON out; and refusals."""

from pathlib import Path

import attrs
import pytest

from benchmarks.replaying import make_capture
from querator.core.events import PolicyApplied
from querator.core.ids import Duration
from querator.core.policy import decode_policy, encode_policy
from querator.log.codec import decode_events, encode_events
from querator.replay.capture import CapturedRecord, CaptureHead, CaptureWriter, Payloads, read_capture
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("simulate") / "work.capture"
    make_capture(file, 4_000, 10)
    return file


def test_a_table_says_what_would_have_been(cli: Run, capture: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = cli(
        *("simulate", str(capture), "--set", "reservation_timeout=100ms", "--set", "max_attempts=3"),
        *("--set", "partitions=4", "--consumers", "6", "--speed", "0.8", "--html", str(page)),
    )
    assert done.code == 0
    assert "SIMULATED" in done.out
    (produced,) = [line.split() for line in done.out.splitlines() if line.startswith("items produced")]
    assert produced[2:] == ["4,000", "4,000"]
    (duplicates,) = [line.split() for line in done.out.splitlines() if line.startswith("duplicates")]
    assert duplicates[-1].startswith("+")
    text = page.read_text()
    assert "<title>work: what if</title>" in text
    assert (
        "Changed: reservation_timeout = 100 ms, max_attempts = 3, partitions = 4, 6 consumers, work 0.8 times"
        in text
    )
    assert "<h1>work: what if</h1>" in text
    for chart in ("Backlog", "Waiting time", "Processing time", "Retries", "Duplicates", "Dead letters"):
        assert f"<h2>{chart}</h2>" in text


def test_json_has_the_lines_as_well(cli: Run, capture: Path) -> None:
    (document,) = cli(
        "simulate", str(capture), "--set", "backoff=5s,factor=3,limit=1m,jitter=0", "--json"
    ).json
    assert document["ok"]
    assert document["recorded"]["completed"] == 4_000
    assert document["simulated"]["retried"] > 0
    lines = document["timeline"]
    assert lines["simulated"]["waiting"] != lines["recorded"]["waiting"]
    assert len(document["timeline"]["at"]) == len(document["timeline"]["simulated"]["waiting"])


def test_nothing_changed_is_what_was(cli: Run, capture: Path) -> None:
    (document,) = cli("simulate", str(capture), "--json").json
    assert document["recorded"] == document["simulated"]


def with_a_policy_that_nobody_kept(capture: Path, file: Path) -> None:
    """The recording, but for what it says of the reservation timeout."""
    with capture.open("rb") as content, file.open("wb") as out:
        things = read_capture(content)
        head = next(things)
        assert isinstance(head, CaptureHead)
        writer = CaptureWriter(out, attrs.evolve(head, payloads=Payloads.DROPPED))
        for thing in things:
            if isinstance(thing, CapturedRecord):
                events = decode_events(thing.record.events)
                for event in events:
                    if isinstance(event, PolicyApplied):
                        policy = decode_policy(event.document)
                        event.document = encode_policy(
                            attrs.evolve(policy, reservation_timeout=Duration(30_000))
                        )
                writer.record(attrs.evolve(thing.record, events=encode_events(events)))
        writer.finish()


def test_where_the_model_is_not_the_log_nothing_is_predicted(cli: Run, capture: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.capture"
    with_a_policy_that_nobody_kept(capture, file)
    done = cli("simulate", str(file), "--set", "max_attempts=3")
    assert done.code == 65
    assert "nothing is predicted" in " ".join(done.err.split())
    assert "ended" in done.out
    assert "SIMULATED" not in done.out
    (verdict,) = cli("simulate", str(file), "--json").json
    assert not verdict["ok"]
    (ended,) = [one for one in verdict["differences"] if one["what"] == "ended"]
    assert ended["simulated"] > ended["recorded"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--set", "colour=red"), "there is no such setting"),
        (("--set", "partitions"), "write NAME=VALUE"),
        (("--set", "partitions=0"), "no whole number from 1"),
        (("--set", "max_attempts=many"), "no whole number"),
        (("--set", "reservation_timeout=soon"), "not a duration"),
        (("--set", "reservation_timeout=0s"), "longer than nothing"),
        (("--set", "ordering=random"), "neither fifo nor key"),
        (("--set", "backoff=1s,jitter=2"), "write it as 1s"),
        (("--speed", "0"), "from 0.001"),
        (("--consumers", "-1"), "from 0"),
    ],
)
def test_what_cannot_be_set_is_refused(
    cli: Run, capture: Path, words: tuple[str, ...], complaint: str
) -> None:
    done = cli("simulate", str(capture), *words)
    assert done.code == 2
    assert complaint in " ".join(done.err.split())


def test_a_queue_that_is_not_there_is_refused(cli: Run, capture: Path) -> None:
    done = cli("simulate", str(capture), "--queue", "mail")
    assert done.code == 65
    assert "no queue 'mail'" in done.err
