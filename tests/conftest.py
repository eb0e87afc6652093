"""What all tests share: hypothesis profiles, seeds on paper, and long tests kept apart.

``ci`` (the default) draws the same examples each time, so that a failure is the change's and not
the dice's; ``long`` (``make test-long``) draws new ones and many more.
"""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.postgres import Cluster, fresh_database, shared_cluster

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=50,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "long",
    derandomize=False,
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
hypothesis.settings.load_profile(PROFILE)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The seeds, so that a run can be run again."""
    return [
        f"hypothesis profile: {PROFILE}",
        f"PYTHONHASHSEED: {os.environ.get('PYTHONHASHSEED', 'random')}",
        f"long tests: {'yes' if config.getoption('--long') else 'no (--long)'}",
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests are left out unless asked for, not skipped: a skip would be a note on every run."""
    if config.getoption("--long"):
        return
    kept = [item for item in items if item.get_closest_marker("long") is None]
    left_out = [item for item in items if item.get_closest_marker("long") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture
def cluster() -> Cluster:
    """The PostgreSQL that all tests share; one that kills its server makes its own (``own_cluster``)."""
    return shared_cluster()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[str]:
    """A database with our schema, for one test."""
    with fresh_database(cluster) as name:
        yield name
