"""The inputs section: what goes in comes out, for ever, and nothing else is taken for one."""

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from querator.core.demand import Parked, Subscription
from querator.core.ids import Duration, Instant, ReservationNumber
from querator.core.inputs import NO_INPUTS, Gathering, How, Inputs, LateSettlement, PayloadsMoved, Waiter
from querator.errors import CorruptRecord
from querator.log.inputs import VERSION, decode_inputs, encode_inputs

GOLDEN = Path(__file__).parent.parent / "golden" / "inputs"
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def sample() -> Gathering:
    """One of everything."""
    gathering = Gathering()
    gathering.nobody()
    gathering.asked(10, 2_097_152, Duration(5_000_000))
    gathering.begin_call()
    parked: Parked[str] = Parked(
        "a", 1, 7, Instant(9), Duration(0), "", held=False, bytes_max=100, since=Instant(40)
    )
    parked.number = 3
    gathering.parked(parked, Instant(100))
    pushed: Subscription[str] = Subscription(
        "b",
        2,
        window=100,
        window_bytes=5_000,
        batch=10,
        linger=Duration(50),
        timeout=Duration(0),
        held=True,
    )
    pushed.number, pushed.linger_at = 4, 120
    pushed.fill(30, 1_000)
    gathering.pushed(pushed, Instant(100))
    gathering.late.append((17, 1, 1_750_000_000_123_456))
    gathering.moved.append((2, 5, 1))
    return gathering


EXPECTED = Inputs(
    (
        Waiter(How.NOBODY, 0),
        Waiter(How.ASKED, 0, 0, 10, 2_097_152, timeout=Duration(5_000_000)),
        Waiter(How.PARKED, 1, 3, 7, 100, waited=Duration(60)),
        Waiter(How.PUSHED, 1, 4, 10, 4_000, 70, linger=Duration(50), linger_for=Duration(20)),
    ),
    (LateSettlement(ReservationNumber(17), 1, Instant(1_750_000_000_123_456)),),
    (PayloadsMoved(2, 5, True),),
)


def test_what_is_gathered_is_read() -> None:
    assert decode_inputs(encode_inputs(sample())) == EXPECTED


def test_nothing_gathered_is_no_byte() -> None:
    gathering = Gathering()
    gathering.begin_call()
    assert encode_inputs(gathering) == b""
    assert decode_inputs(b"") == NO_INPUTS


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.hex")), ids=lambda path: path.stem)
def test_every_version_ever_written_is_read(path: Path) -> None:
    assert decode_inputs(bytes.fromhex(path.read_text())) == EXPECTED


def test_the_present_version_is_written_as_it_always_was() -> None:
    written = encode_inputs(sample())
    path = GOLDEN / f"v{VERSION}.hex"
    assert path.read_text() == written.hex() + "\n"


def test_a_version_that_is_not_known_counts_as_none() -> None:
    assert decode_inputs(bytes((VERSION + 1,)) + b"whatever") == NO_INPUTS


@given(
    st.lists(st.tuples(st.sampled_from(How), *[NUMBERS] * 9), max_size=20),
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=20),
)
def test_all_numbers_survive(
    waiters: list[tuple[int, int, int, int, int, int, int, int, int, int]], late: list[tuple[int, int, int]]
) -> None:
    gathering = Gathering()
    gathering.waiters += waiters
    gathering.late += late
    found = decode_inputs(encode_inputs(gathering))
    assert [attrs.astuple(waiter) for waiter in found.waiters] == waiters
    assert [attrs.astuple(one) for one in found.late] == late


def test_what_is_cut_off_or_goes_on_is_corrupt() -> None:
    data = encode_inputs(sample())
    for length in range(1, len(data)):
        with pytest.raises(CorruptRecord):
            decode_inputs(data[:length])
    with pytest.raises(CorruptRecord, match="go on"):
        decode_inputs(data + b"\0")


def test_a_way_that_is_not_known_is_corrupt() -> None:
    gathering = Gathering()
    gathering.waiters.append((99, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(CorruptRecord, match="99"):
        decode_inputs(encode_inputs(gathering))
