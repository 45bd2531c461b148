"""Speed and falls of each skill of a bundle alone.

    python -m tests.benchmarks.skill_speed ant_movement [--seconds 15] [--episodes 32]

On an empty floor, without exploration, from the starts of the bundle's family. The steady speed is
that of the second half.
"""

from __future__ import annotations

import argparse

import numpy as np

from policies.bundle.bundle import load_bundle
from policies.bundle.runtime import Network
from sim.envs.world import World
from sim.physics.robot_model import load_robot
from sim.seeding import episode_rng
from sim.tasks.registry import make_family
from sim.tasks.running import FALLEN, leans
from tests.benchmarks import one_line_errors


@one_line_errors
def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--episodes", type=int, default=32)
    given = parser.parse_args()
    bundle = load_bundle(given.bundle)
    interface = bundle.interface
    ticks = round(given.seconds / interface.control_dt)
    family = make_family("ant_movement", {"ticks": ticks + 1})
    world = World(load_robot(interface.robot), family, given.episodes)
    for name, data in zip(bundle.manifest.skills, bundle.skills, strict=True):
        network = Network(data, name)
        rngs = [episode_rng(0, n) for n in range(given.episodes)]
        world.reset(np.arange(given.episodes, dtype=np.int32), [0] * given.episodes, rngs)
        fields = world.true_state()
        places = [fields["position"]]
        for _ in range(ticks):
            fields, _ = world.step(network(interface.observe(fields)))
            places.append(fields["position"])
        way = np.stack(places)  # (ticks + 1, episodes, 2)
        half = (way[-1] - way[ticks // 2]) / ((ticks - ticks // 2) * interface.control_dt)
        speed = np.linalg.norm(half, axis=1)
        ahead = np.degrees(np.arctan2(half[:, 1], half[:, 0]).round(3))
        fell = leans(fields["orientation"], FALLEN).sum()
        print(
            f"{name}: {speed.mean():.2f} m/s ({speed.min():.2f} .. {speed.max():.2f}), "
            f"towards {np.median(ahead):.0f} degrees ({ahead.min():.0f} .. {ahead.max():.0f}), "
            f"{np.linalg.norm(way[-1] - way[0], axis=1).mean():.1f} m in {given.seconds:.0f} s; "
            f"{fell} of {given.episodes} fell"
        )


if __name__ == "__main__":
    main()
