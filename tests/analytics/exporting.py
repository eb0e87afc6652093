"""An export in a process of its own, to be killed: ``python -m tests.analytics.exporting DATA ARCHIVE``.

Its steps are small, and it prints a line before it begins each of them and one when all is exported.
"""

import sys
from pathlib import Path
from typing import Any

import attrs
import trio

from querator.analytics.export import Exporter
from querator.analytics.manifest import MANIFEST
from querator.core import limits
from querator.env.real import real_env
from querator.log.sqlite import SqliteLog


class TellingFiles:
    """Tells of each change before it happens."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    async def write(self, path: Path, content: bytes) -> None:
        print("manifest" if path.name == MANIFEST else "file", flush=True)
        await self._files.write(path, content)


async def main(data: Path, archive: Path) -> None:
    files: Any = TellingFiles(real_env().files)
    store = SqliteLog(real_env(), data)
    await store.open()
    try:
        await Exporter(attrs.evolve(real_env(), files=files), [store], archive).refresh()
    finally:
        await store.aclose()
    print("done", flush=True)


if __name__ == "__main__":
    limits.EXPORT_STEP_ROWS = 40  # type: ignore[misc]
    limits.EXPORT_PAGE_RECORDS = 5  # type: ignore[misc]
    trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]))
