"""The command line: ``querator serve``, and everything an operator or a script does with a server.

Each module has the commands of one noun; ``main`` puts them together and is the one place where errors
become words and exit codes (docs/CLI.md). Commands print results to standard output and everything else
to standard error. With ``--json`` a result is JSON, one document a line.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (default: that of the process's arguments); its exit code."""
    # Loaded here, so that importing the package costs nothing.
    from querator.cli.aside import is_modest, run_aside  # noqa: PLC0415

    if argv is None and is_modest(sys.argv[1:]):
        return run_aside(sys.argv[1:])
    from querator.cli.main import run  # noqa: PLC0415

    return run(argv)


__all__ = ["main"]
