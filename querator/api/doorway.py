"""Who may come in: bounds on the connections of a node, of one address, and of those who have shown no key.

Whoever connects is a *stranger* until a request or ``hello`` of theirs carried a good key. Strangers cost
memory and a descriptor each, and nothing is known of them, so that of them there may be few; where nobody
needs a key there are none.
"""

from typing import Final

import attrs

from querator.api.access import Access
from querator.api.counters import Counters
from querator.config import is_loopback
from querator.core import limits

TOO_MANY: Final = "too many connections"
TOO_MANY_STRANGERS: Final = "too many connections that have shown no API key"


@attrs.define(eq=False)
class Visit:
    """One connection, from when it is let in until ``leave``."""

    _doorway: "Doorway"
    remote: str
    is_stranger: bool = True

    def introduce(self) -> None:
        """A good key was shown: this is no stranger any more."""
        if self.is_stranger:
            self.is_stranger = False
            self._doorway.strangers -= 1

    def leave(self) -> None:
        """It has ended. Once."""
        self.introduce()
        self._doorway.left(self.remote)


@attrs.define(eq=False)
class Doorway:
    """Counts the connections of a server."""

    _access: Access
    _counters: Counters
    _connections_max: int
    _of_address_max: int
    """Of one address; those of this machine itself are not counted."""
    _strangers_max: int
    strangers: int = 0
    _of_address: dict[str, int] = attrs.Factory(dict)

    def refusal(self, remote: str) -> str:
        """Why nobody may come in from there now; "" when they may."""
        if self._counters.connections_now >= self._connections_max:
            return TOO_MANY
        if self._of_address.get(remote, 0) >= self._of_address_max and not is_loopback(remote):
            return TOO_MANY
        if self.strangers >= self._strangers_max and self._access.wants_keys:
            return TOO_MANY_STRANGERS
        return ""

    def enter(self, remote: str) -> Visit:
        """Somebody comes in."""
        self._counters.connections += 1
        self._counters.connections_now += 1
        self._of_address[remote] = self._of_address.get(remote, 0) + 1
        self.strangers += 1
        return Visit(self, remote)

    def left(self, remote: str) -> None:
        self._counters.connections_now -= 1
        self._of_address[remote] -= 1
        if not self._of_address[remote]:
            del self._of_address[remote]


def connections_within(descriptors: int) -> int:
    """How many connections a process with so many descriptors may have: DESCRIPTORS_BESIDE are for all else,
    or half of them where there are few."""
    return min(limits.CONNECTIONS_MAX, max(descriptors - limits.DESCRIPTORS_BESIDE, descriptors // 2))
