"""The pages at the top and in docs/ point to what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
FILE = re.compile(r"`((?:tests|querator|docs|simulations|benchmarks)/[\w/.]+?)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = LINK.findall(path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_and_tests_that_are_named_exist(page: str) -> None:
    """A page that names the test of a promise must not outlive the test."""
    missing = []
    for file, name in FILE.findall((ROOT / page).read_text()):
        path = ROOT / file
        if not path.exists() or (name and f"def {name}(" not in path.read_text()):
            missing.append(f"{file}::{name}" if name else file)
    assert missing == []


def test_every_decision_is_numbered_dated_and_has_a_status() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for number, path in enumerate(pages, 1):
        assert path.name.startswith(f"{number:04}-")
        title, _, status = path.read_text().splitlines()[:3]
        assert title.startswith(f"# {number}. ")
        assert re.fullmatch(
            r"Date: \d{4}-\d\d-\d\d\. Status: (accepted|superseded by .+)\.( Refines .+\.)?", status
        )
