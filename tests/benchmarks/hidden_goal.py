"""Does the observation of `body_patrol` show the goal to go to next, which it does not contain?

    python -m tests.benchmarks.hidden_goal

Robots `go2` select skills as a planner that knows the goal, and a part of their decisions is drawn
at random. The next goal of every decision of half of the robots is predicted from those of the
other half, whose observations are nearest. Robots are at goals of their own in each episode.
"""

import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats
from sim.seeding import episode_rng
from sim.tasks.body_patrol import BodyPatrol
from tests.benchmarks import one_line_errors
from tests.benchmarks.planner import Route, Skilled, steer

RANDOM = (0.0, 0.1, 0.3, 1.0)  # parts of the decisions
ROBOTS, NEIGHBORS = 48, 7


def decisions(random: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Of an episode each: observed goals (T, n, 4), and whether the next is the second (T, n)."""
    family = BodyPatrol()
    walker = Skilled(ROBOTS, family.ticks, family)
    starts = [episode_rng(0, n) for n in range(ROBOTS)]
    walker.world.reset(np.arange(ROBOTS, dtype=np.int32), np.zeros(ROBOTS, np.int32), starts)
    walker.memory.reset()
    walker.fields = walker.world.measurements(walker.world.true_state())
    route, rng = Route(family, 0, ROBOTS), np.random.default_rng(0)
    command, shown, second = np.zeros((ROBOTS, 3)), [], []
    for tick in range(family.ticks):
        if tick % walker.decision_ticks == 0:
            seen = walker.interface.observe(walker.fields, memory=walker.memory)
            shown.append(seen[:, walker.interface.observation_slices["goals"]].astype(np.float64))
            second.append(walker.world.layout["last"] == 0)
            drawn = rng.integers(len(walker.commands), size=ROBOTS)
            command = np.where(
                (rng.random(ROBOTS) < random)[:, None],
                walker.commands[drawn],
                steer(route.offset(walker)),
            )
        fields, _ = walker.world.step(walker.action(command))
        walker.fields = walker.world.measurements(fields)
    return np.array(shown), np.array(second)


@one_line_errors
def main() -> None:
    """A line for each part of random decisions."""
    for random in RANDOM:
        shown, second = decisions(random)
        known, asked = (
            (each.reshape(-1, 4), goal.ravel())
            for each, goal in zip(
                np.split(shown, 2, axis=1), np.split(second, 2, axis=1), strict=True
            )
        )
        apart = ((asked[0][:, None] - known[0]) ** 2).sum(axis=-1)
        nearest = np.argsort(apart, axis=1)[:, :NEIGHBORS]
        found = (known[1][nearest].mean(axis=1) > 0.5) == asked[1]
        often = max(asked[1].mean(), 1 - asked[1].mean())
        print(
            f"{random:.0%} of the decisions at random: next goal predicted in {found.mean():.0%}, "
            f"the more frequent goal is next in {often:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
