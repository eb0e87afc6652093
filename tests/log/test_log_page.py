"""docs/LOG.md tells the truth about what is on the disk."""

import re
from pathlib import Path

from querator.log import columns
from querator.log.kinds import ATTRIBUTES, KINDS, VERSION

PAGE = (Path(__file__).parents[2] / "docs" / "LOG.md").read_text()

WORDS = (
    (columns.INTEGERS, "int"),
    (columns.BOOLEANS, "bool"),
    (columns.TEXTS, "text"),
    (columns.BLOBS, "bytes"),
    (columns.PAIRS, "pairs"),
    (columns.OPTIONAL_PAIRS, "pairs?"),
    (columns.HEADERS, "maps"),
    (ATTRIBUTES, "attributes"),
)


def word(column: columns.Column) -> str:
    (found,) = [name for known, name in WORDS if known is column]
    return found


def test_the_page_is_of_the_version_that_is_written() -> None:
    assert f"a record of version {VERSION} is stored" in PAGE


def test_the_page_has_every_kind_with_its_columns_in_order() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (
            str(kind.number),
            kind.event.__name__,
            ", ".join(
                f"{name} {word(column)}" for name, column in zip(kind.names, kind.columns, strict=True)
            ),
        )
        for kind in KINDS
    ]


def test_the_page_has_every_attribute_in_order() -> None:
    (listed,) = re.findall(r"columns of \*attributes\* are: (.*)\.\n", PAGE)
    assert listed == ", ".join(f"{name} {word(column)}" for name, column in ATTRIBUTES.names)
