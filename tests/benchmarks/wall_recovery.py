"""Motion of each skill after another one has run into a wall.

    python -m tests.benchmarks.wall_recovery ant_four [--room 12] [--episodes 16]

Every skill in turn runs for 10 s in a room with walls, then every other one for 5 s, without
exploration. How far that gets along x or y, and how many do not get 2 m.
"""

from __future__ import annotations

import argparse

import numpy as np

from policies.bundle.bundle import Bundle, load_bundle
from policies.bundle.runtime import Network
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.registry import make_family
from tests.benchmarks import one_line_errors

FIRST, THEN = 10.0, 5.0  # s
STUCK = 2.0  # m


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--room", type=float, default=12.0, help="half its width, m")
    parser.add_argument("--episodes", type=int, default=16)
    given = parser.parse_args()
    measure(load_bundle(given.bundle), given.room, given.episodes)


def measure(bundle: Bundle, room: float, n: int) -> None:
    """Print all pairs of skills, of n ants each in a room of that half width, m."""
    interface, names = bundle.interface, bundle.manifest.skills
    skills = [Network(data, name) for name, data in zip(names, bundle.skills, strict=True)]
    first, then = (round(s / interface.control_dt) for s in (FIRST, THEN))
    family = make_family("ant_movement", {"ticks": first + then + 1, "room": room})
    world = World(load_robot(interface.robot), family, len(skills) * n)
    ids = np.arange(len(skills) * n, dtype=np.int32)
    total, stuck = [], 0
    for i, name in enumerate(names):
        rngs = [episode_rng(0, int(e)) for e in np.tile(np.arange(n), len(skills))]
        world.reset(ids, [0] * len(ids), rngs)
        fields = world.true_state()
        for tick in range(first + then):
            if tick == first:
                begin = fields["position"].copy()
            seen = interface.observe(fields)
            if tick < first:
                action = skills[i](seen)
            else:
                parts = np.split(seen, len(skills))
                action = np.concatenate([s(o) for s, o in zip(skills, parts, strict=True)])
            fields, _ = world.step(action)
        way = np.abs(fields["position"] - begin).max(axis=1).reshape(len(skills), n)
        for j, moved in enumerate(way):
            if j != i:
                total.append(moved.mean())
                stuck += int((moved < STUCK).sum())
                print(
                    f"{name}, then {names[j]}: {moved.mean():.1f} m, "
                    f"{(moved < STUCK).sum()} of {n} below {STUCK:.0f} m"
                )
    print(f"all: {np.mean(total):.1f} m, {stuck} of {len(total) * n} below {STUCK:.0f} m")


if __name__ == "__main__":
    main()
