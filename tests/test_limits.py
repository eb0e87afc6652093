"""A bound is a bound only where something looks at it, and where a test stands at it."""

import re
from pathlib import Path

import pytest

SOURCES = Path("querator")
TESTS = Path("tests")
LIMITS = SOURCES / "core/limits.py"
NAMES = re.findall(r"^([A-Z][A-Z_0-9]*): Final", LIMITS.read_text(), re.MULTILINE)


def words_of(folder: Path, *, without: Path) -> frozenset[str]:
    """All constants' names in the code of a folder, but for one file of it."""
    files = [path for path in sorted(folder.rglob("*.py")) if path != without]
    return frozenset(re.findall(r"\b[A-Z][A-Z_0-9]*\b", "\n".join(path.read_text() for path in files)))


@pytest.fixture(scope="module")
def code() -> frozenset[str]:
    """Of the product, but for the limits themselves."""
    return words_of(SOURCES, without=LIMITS)


@pytest.fixture(scope="module")
def tests() -> frozenset[str]:
    """Of all tests but this one."""
    return words_of(TESTS, without=TESTS / "test_limits.py")


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_is_looked_at_somewhere(name: str, code: frozenset[str]) -> None:
    """One that is only declared is a promise that nobody keeps."""
    assert name in code


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_is_named_by_a_test(name: str, tests: frozenset[str]) -> None:
    """A test that stands at a limit says its name: what happens there, and what one past it."""
    assert name in tests
