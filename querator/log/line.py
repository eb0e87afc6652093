"""The line of nodes: which of several on one store may try to claim.

What keeps two owners' records apart is the log's unique key, not this. One node of the line owns and claims
everything; the others stand by, with its address at hand.
"""

import enum
from typing import Protocol

import attrs


class Role(enum.Enum):
    OWNER = "owner"
    """It alone: may claim, and keep what it claimed."""
    STANDBY = "standby"
    """Somebody else owns, or nobody knows."""


@attrs.frozen
class Standing:
    """A node's place in the line, as of its last renewal."""

    role: Role
    owner_name: str = ""
    owner_address: str = ""
    """Where clients are sent; "" when it is not known."""
    next_address: str = ""
    """Of the node that is next when the first one goes; "" when there is none."""


class Line(Protocol):
    """This node's place in the line. Owned by the node, which renews it every ``NODE_RENEWAL``."""

    def standing(self) -> Standing:
        """What may be acted on now: an owner whose time may be over is none."""

    async def renew(self) -> Standing:
        """Join the line or stay in it.

        Raises:
            LogUnavailable: the store does not answer; the standing wears off by itself.
        """

    async def leave(self) -> None:
        """Step out of the line, so that the next one need not wait; close what was used for it.

        Raises:
            LogUnavailable: the store does not answer; the place is lost with time.
        """
