"""Commands that nobody should feel who uses the machine for something else: in a modest process.

Reading and asking history takes a second of all processors for its imports alone, and whoever asks mostly
sits where the server runs. So such a command is run by a child in a session of its own (env/modest.py says
what that is good for), before anything is loaded here that takes time. On a machine with nothing else to do
it is as fast as any. What is typed and printed is the child's; signals are passed on, and its end is ours.
"""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

COMMANDS: Final = ("refresh", "compact", "verify", "report", "sql", "export", "shell")
"""Of ``querator analytics``. The others ask a server."""
EAGER: Final = "--no-modest"
_MODEST: Final = Path(__file__).parents[1] / "env" / "modest.py"
"""Found without importing it: its package takes a while."""
_CHILD: Final = "querator.cli.main"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DIES_WITH_PARENT: Final = 1
"""PR_SET_PDEATHSIG."""


def is_modest(tokens: Sequence[str]) -> bool:
    """Whether this command is to have only what others leave."""
    return tokens[:1] == ["analytics"] and tokens[1:2] != [] and tokens[1] in COMMANDS and EAGER not in tokens


def run_aside(tokens: Sequence[str]) -> int:
    """Run the command in a modest child; its exit code. Nothing of it is left when we are killed."""
    child = subprocess.Popen(  # noqa: S603 - what runs is ours
        [sys.executable, *_as_we_import(), str(_MODEST), _CHILD, *tokens],
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
    )

    def pass_on(number: int, frame: object) -> None:
        del frame
        child.send_signal(number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    code = child.wait()
    # Ended by a signal: as a shell has it.
    return code if code >= 0 else 128 - code


def _as_we_import() -> list[str]:
    """Whoever does not import from the working directory has no child that does."""
    return [] if sys.path[:1] in ([""], [str(Path.cwd())]) else ["-P"]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, int(signal.SIGKILL))
