"""Checkers: one promise a module. Each looks at plain history (evidence.py): what clients asked and were
told, and the log that is left."""

from collections.abc import Callable

from simulations.checkers.attempts import check_attempts
from simulations.checkers.bounds import check_bounds
from simulations.checkers.claimed import check_claimed
from simulations.checkers.completed_once import check_completed_once
from simulations.checkers.conservation import check_conservation
from simulations.checkers.converged import check_converged
from simulations.checkers.deadlines import check_deadlines
from simulations.checkers.delivered import check_delivered
from simulations.checkers.dense import check_dense
from simulations.checkers.evidence import Evidence
from simulations.checkers.fence import check_fence
from simulations.checkers.idempotence import check_idempotence
from simulations.checkers.leases import check_leases
from simulations.checkers.moves import check_moves
from simulations.checkers.no_loss import check_no_loss
from simulations.checkers.no_phantom import check_no_phantom
from simulations.checkers.no_silent_loss import check_no_silent_loss
from simulations.checkers.one_holder import check_one_holder
from simulations.checkers.order import check_order
from simulations.checkers.owned import check_owned
from simulations.checkers.owners import check_owners
from simulations.checkers.punctual import check_punctual
from simulations.checkers.schedule import check_schedule
from simulations.checkers.settling import check_settling
from simulations.checkers.storms import check_storms
from simulations.checkers.witness import check_witness

CHECKERS: dict[str, Callable[[Evidence], list[str]]] = {
    "no_loss": check_no_loss,
    "no_phantom": check_no_phantom,
    "completed_once": check_completed_once,
    "one_holder": check_one_holder,
    "settling": check_settling,
    "leases": check_leases,
    "fence": check_fence,
    "dense": check_dense,
    "owners": check_owners,
    "conservation": check_conservation,
    "deadlines": check_deadlines,
    "order": check_order,
    "schedule": check_schedule,
    "idempotence": check_idempotence,
    "moves": check_moves,
    "witness": check_witness,
    "attempts": check_attempts,
    "bounds": check_bounds,
    "no_silent_loss": check_no_silent_loss,
    "delivered": check_delivered,
    "claimed": check_claimed,
    "owned": check_owned,
    "punctual": check_punctual,
    "converged": check_converged,
    "storms": check_storms,
}
"""``replay`` (S10, S11) is beside them: it reads a store."""
REPLAY = "replay"
