"""Assigns tasks to groups and decides when a group gets a new task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.actor_critic import put
from policies.mlsh.config import MlshConfig
from sim.seeding import Stream, generator


@dataclass(frozen=True)
class NewTask:
    """A group's next task."""

    group: int
    task: int
    master: int  # number of its fresh master: its weights are drawn with it


class TaskSchedule:
    """The tasks of all G groups, staggered over warm-up and joint phase.

    Args:
        config: of the method.
        count: of tasks in the family.
        seed: of the tasks that are drawn.
        tasks: (G,) the first task of each group, by default drawn.
        staggered: whether the groups begin at different ages, so that the skills always learn
            from groups on several tasks.

    Attributes:
        tasks: (G,).
        age: (G,) updates of each group on its task.
        fresh: (G,) the group's master has not been updated on its task yet.
        masters_made: so far.
    """

    def __init__(
        self,
        config: MlshConfig,
        count: int,
        seed: int,
        *,
        tasks: list[int] | None = None,
        staggered: bool = True,
    ) -> None:
        self.config, self.count, self.seed = config, count, seed
        self.tasks = np.array(self._first_tasks() if tasks is None else tasks, np.intp)
        stagger = np.arange(config.groups) * self.period // config.groups
        self.age = stagger if staggered else np.zeros(config.groups, np.int64)
        self.fresh = np.ones(config.groups, bool)
        self.masters_made = config.groups

    @property
    def period(self) -> int:
        """Updates that a group spends on a task."""
        return self.config.warmup + self.config.joint

    @property
    def probing(self) -> NDArray[np.bool_]:
        """(G,) True where the group's rollout is for the probe."""
        return self.fresh & (self.config.probe != "none")

    @property
    def joint(self) -> NDArray[np.bool_]:
        """(G,) True where the group has completed its warm-up."""
        return self.age >= self.config.warmup

    @property
    def warmup_left(self) -> NDArray[np.float64]:
        """(G,) remaining fraction of the warm-up, 1 to 0."""
        left: NDArray[np.float64] = (1 - self.age / max(1, self.config.warmup)).clip(min=0)
        return left

    def change(self, iteration: int) -> list[NewTask]:
        """Give another task to every group that has finished its own.

        Args:
            iteration: selects the randomness.
        """
        changes = []
        for g in np.flatnonzero(self.age >= self.period).tolist():
            rng = generator(self.seed, Stream.TASKS, iteration + 1, g)
            self.tasks[g] = self._draw(np.delete(self.tasks, g), rng)
            changes.append(NewTask(g, int(self.tasks[g]), self.masters_made))
            self.masters_made += 1
            self.age[g], self.fresh[g] = 0, True
        return changes

    def advance(self) -> None:
        """Advance by one update of every group."""
        self.age += 1
        self.fresh[:] = False

    def _first_tasks(self) -> list[int]:
        tasks: list[int] = []
        for g in range(self.config.groups):
            rng = generator(self.seed, Stream.TASKS, 0, g)
            tasks.append(self._draw(np.array(tasks, np.intp), rng))
        return tasks

    def _draw(self, others: NDArray[np.intp], rng: np.random.Generator) -> int:
        """Draw a task at random; when balanced, one of those that the fewest other groups have."""
        count = np.bincount(others, minlength=self.count)
        if self.config.balanced_tasks:
            return int(rng.choice(np.flatnonzero(count == count.min())))
        return int(rng.integers(len(count)))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Ages of the groups, as arrays; the tasks are part of the environment's state."""
        return {
            "masters_made": np.array(self.masters_made),
            "age": self.age.copy(),
            "fresh": self.fresh.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state` and of the environment.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has another shape.
        """
        self.masters_made = int(arrays["masters_made"])
        put(arrays, "age", self.age)
        put(arrays, "fresh", self.fresh)
        put(arrays, "env.tasks", self.tasks)
