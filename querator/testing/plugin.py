"""The pytest plugin, for pytest-trio: the fixture ``querator_broker`` and the option ``--querator-seed``."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    from querator.testing.in_process import Broker

OPTION: Final = "--querator-seed"

try:
    from pytest_trio import trio_fixture as _fixture
except ImportError:
    # Without pytest-trio pytest itself says that it cannot run what is async.
    _fixture = pytest.fixture


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("querator")
    group.addoption(OPTION, type=int, default=0, help="seed of the broker that querator_broker gives")


@pytest.fixture
def querator_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the run; override the fixture to try others."""
    return int(request.config.getoption("querator_seed", 0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failure says which seed repeats it."""
    report: pytest.TestReport = yield
    if report.failed and "querator_broker" in getattr(item, "fixturenames", ()):
        seed = getattr(item, "funcargs", {}).get("querator_seed", 0)
        report.sections.append(("querator", f"again with: pytest {item.nodeid} {OPTION}={seed}"))
    return report


def _run_virtually(main: Any, *, clock: Any = None, instruments: Sequence[Any] = ()) -> Any:
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test with a broker runs under trio with a virtual clock, also where it names no clock."""
    if "querator_broker" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.trio(run=_run_virtually), append=False)


@_fixture  # type: ignore[untyped-decorator]
async def querator_broker(querator_seed: int) -> "AsyncIterator[Broker]":
    """A broker in this process under a virtual clock; see querator.testing.Broker."""
    from querator.testing.in_process import broker  # noqa: PLC0415 - pytest loads plugins in every run

    async with broker(querator_seed) as found:
        yield found
