"""What happened in a run: one line per notable happening, marks that say which faults really bit, a digest.

The line is ``time  who  what  detail``: virtual seconds since the start, the node or client, the
happening, and what it was about.
"""

import hashlib
from collections import Counter
from typing import Final

import trio

LEGEND: Final = """\
   seconds  who         what                detail
  seconds: virtual, since the start; who: a life of a node (n1, or a1, b1, ...), a client, or "mark";
  what: append (partition:position, and its fate), up (and how wrong its clock is), received
  (partition.reservation xitems), acknowledged (partition.first xitems), healed; marks name what struck"""


class Trace:
    """Of one run. The digest covers every line, so equal digests are equal runs."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._hash = hashlib.blake2b(digest_size=12)
        self.marks: Counter[str] = Counter()
        self.lines = 0
        self.is_verbose = verbose

    def note(self, who: str, what: str, detail: str = "") -> None:
        line = f"{trio.current_time():12.6f}  {who:10}  {what:18}  {detail}"
        self._hash.update(line.encode())
        self.lines += 1
        if self.is_verbose:
            print(line)

    def mark(self, name: str) -> None:
        """This kind of thing happened (again); a run's marks show that its faults were not idle."""
        self.marks[name] += 1
        self.note("mark", name)

    def heard(self, name: str, fields: dict[str, object]) -> None:
        """What the program itself says of what happens in it (querator/telemetry.py)."""
        del fields
        self.marks[f"querator.{name}"] += 1

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
