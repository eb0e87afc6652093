"""What is run: the options of a run, what is put into it on purpose, and the command that runs it again."""

import attrs

from simulations.checkers import CHECKERS, REPLAY
from simulations.options import Options
from simulations.outcome import Outcome
from simulations.plants import planted
from simulations.run import run_world
from simulations.scenarios import SCENARIOS
from simulations.trace import Trace
from simulations.world import World


@attrs.frozen(kw_only=True)
class Case:
    """``plant``: a bug from simulations/plants.py; ``scenario``: a story instead of the nemesis; ``without``:
    checkers that look away, to see what they are there for."""

    options: Options
    profile: str = ""
    """The options are what this profile draws from the seed; empty: they are others."""
    plant: str = ""
    scenario: str = ""
    without: tuple[str, ...] = ()

    @classmethod
    def draw(
        cls, seed: int, profile: str, *, plant: str = "", scenario: str = "", without: tuple[str, ...] = ()
    ) -> "Case":
        """The case of a seed."""
        options = SCENARIOS[scenario].options(seed) if scenario else Options.draw(seed, profile)
        return cls(options=options, profile=profile, plant=plant, scenario=scenario, without=without)

    def run(self, *, verbose: bool = False) -> Outcome:
        """Deterministic: the same case gives the same digest in any process."""
        trace = Trace(verbose=verbose)
        scenario = SCENARIOS[self.scenario] if self.scenario else None
        story = scenario.story if scenario is not None else None
        without = list(self.without)
        if scenario is not None and scenario.only:
            without += [name for name in (*CHECKERS, REPLAY) if name not in scenario.only]
        with planted(self.plant):
            return run_world(World(self.options, trace), trace, story=story, without=without)

    def evolve(self, options: Options) -> "Case":
        """The same with other options."""
        return attrs.evolve(self, options=options, profile="")

    @property
    def command(self) -> str:
        """Runs this case again."""
        words = ["python -m simulations"]
        if self.scenario:
            words += ["--scenario", self.scenario]
        if self.plant:
            words += ["--plant", self.plant]
        words += [f"--without {name}" for name in self.without]
        if self.profile:
            words += ["--profile", self.profile, "--seed", str(self.options.seed)]
        else:
            words += ["--options", f"'{self.options.text()}'"]
        return " ".join(words)
