"""What a scenario is."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from simulations.options import Options

if TYPE_CHECKING:
    from simulations.world import World


@attrs.frozen(kw_only=True)
class Scenario:
    """``story`` happens instead of the nemesis' doings; ``only``: the checkers that apply, if not all."""

    name: str
    text: str
    options: Callable[[int], Options]
    story: "Callable[[World], Awaitable[None]] | None" = None
    only: tuple[str, ...] = ()
