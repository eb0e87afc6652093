"""Runs with a name: small ones that crash at every await, and stories written by hand."""

from typing import Final

from simulations.scenarios.core import CORE
from simulations.scenarios.failover import FAILOVER, SWITCHOVER
from simulations.scenarios.halted_neighbour import HALTED_NEIGHBOUR
from simulations.scenarios.ownership import OWNERSHIP
from simulations.scenarios.scenario import Scenario

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario for scenario in (*CORE, FAILOVER, SWITCHOVER, HALTED_NEIGHBOUR, *OWNERSHIP)
}
CENTRAL: Final = ("plain", "by_request", "retried", "duplicates", "stolen")
"""Those that are crashed twice, too."""
