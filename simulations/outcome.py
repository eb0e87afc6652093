"""What became of a run."""

import enum

import attrs


class Exit(enum.IntEnum):
    """The command's exit codes, by kind: the worst of what was seen."""

    GOOD = 0
    VACUOUS = 126
    """No violation, and some fault never struck or some promise was never at stake: nothing was shown."""
    CRASH = 127
    """An exception came out of the program, or virtual time stood still."""
    LIVENESS = 128
    CORRECTNESS = 129


@attrs.frozen
class Outcome:
    """Of one run."""

    seed: int
    code: Exit
    faults: tuple[str, ...]
    """Each begins with the promise that was broken: ``S1: ...``."""
    digest: str
    virtual_seconds: float
    steps: int
    marks: dict[str, int]
    acknowledged: int
    delivered: int
    lived: int = 0
    """Steps until the run was over; those that judge it come after."""

    @property
    def promise(self) -> str:
        """The first promise that was broken, as ``S4``; empty: none."""
        return self.faults[0].partition(":")[0] if self.faults else ""
