"""A bound is a bound only where something looks at it."""

import re
from pathlib import Path

import pytest

SOURCES = Path("querator")
NAMES = re.findall(r"^([A-Z][A-Z_0-9]*): Final", (SOURCES / "core/limits.py").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def code() -> str:
    """All product code but the limits themselves."""
    files = [path for path in sorted(SOURCES.rglob("*.py")) if path != SOURCES / "core/limits.py"]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("name", NAMES)
def test_every_limit_is_looked_at_somewhere(name: str, code: str) -> None:
    """One that is only declared is a promise that nobody keeps."""
    assert re.search(rf"\b{name}\b", code)
