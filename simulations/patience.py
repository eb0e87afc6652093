"""How long clients may be without a server after it came back."""

from typing import Final

from querator.core.limits import RECONNECT_DELAY_MAX
from querator.env import seconds

RECONNECT: Final = seconds(RECONNECT_DELAY_MAX) + 3.0
"""Seconds after which a client whose connection broke has another one, and its subscriptions."""
