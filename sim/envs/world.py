"""B simulated robots with their tasks: physics, randomization and rewards in one step.

Training, offline evaluation and sim_node all run this class; they differ in the source of the
commands and in the moment at which an episode begins. The task family (`sim.tasks`) defines the
reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.envs.privileged import Privileged, check_privileged, privileged_signals
from sim.errors import UserError
from sim.interface import Floats
from sim.physics.batched_physics import BatchedPhysics
from sim.physics.robot_model import Robot
from sim.physics.signals import check_signals
from sim.randomization.perturbations import NOMINAL, PerturbedSim
from sim.randomization.schema import SimParams
from sim.tasks.base import EpisodeState, TaskFamily
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.rewards.motion import total
from sim.tasks.rewards.reward_sum import RewardSum


@dataclass(frozen=True)
class StepResult:
    """Result of one control step, evaluated on the resulting state."""

    reward: Floats  # (B,)
    terminated: NDArray[np.bool_]  # (B,) the task ended the episode
    truncated: NDArray[np.bool_]  # (B,) something else ended it: time, or that it diverged
    diverged: NDArray[np.bool_]  # (B,) not finite; it stands at the model's defaults again


@dataclass(frozen=True)
class Failure:
    """A tick after which a simulation was no longer finite, with the data to repeat it."""

    simulation: int  # which of the B
    tick: int  # of its episode
    state: Floats  # (n,) MuJoCo's whole state before the tick
    command: Floats  # (A,)
    varied: Floats  # (m,) of `PerturbedSim.state`; empty where all is nominal


FAILURES = 20  # are kept; a model that fails all the time fills no memory


class World:
    """B robots, each on a task of the family.

    Args:
        robot: the robot.
        family: the task family.
        size: B.
        threads: simulation threads; results do not depend on it.
        sim_params: what differs from the nominal model, fixed.
        domain_randomization: what each episode draws around that, as ranges.
        max_episode_steps: ticks after which an episode is truncated; by default the family's.
        privileged: names of privileged values, see `sim.envs.privileged`.

    Attributes:
        calls: the family's methods, with their results checked.
        terms: the family's reward terms, with what each has brought; None without.
        difficulty: the hardest that episodes may be, 0 to 1, for a family with a difficulty.
        failures: the first ticks that ended in a state that is not finite.
    """

    def __init__(
        self,
        robot: Robot,
        family: TaskFamily,
        size: int,
        threads: int = 1,
        sim_params: SimParams | None = None,
        domain_randomization: SimParams | None = None,
        max_episode_steps: int | None = None,
        privileged: Sequence[str] = (),
    ) -> None:
        have = {term.name: term.size for term in robot.interface.observation}
        if missing := [name for name in family.requires if name not in have]:
            raise UserError(
                f"task family {family.name!r} needs the observation term {missing[0]!r}, "
                f"which robot {robot.name!r} does not have. It has: {', '.join(have)}"
            )
        self.family = family
        self.calls = FamilyCalls(family)
        for name, count in self.calls.term_sizes.items():
            if have[name] != count:
                raise UserError(
                    f"task family {family.name!r} needs {count} elements of the observation term "
                    f"{name!r}, of which robot {robot.name!r} has {have[name]}"
                )
        self.max_episode_steps = max_episode_steps or family.ticks
        self.interface = robot.interface.with_terms(family.terms)
        randomized = (domain_randomization or NOMINAL) != NOMINAL
        check_privileged(robot, family, privileged, randomized=randomized)
        signals, where = self.calls.signals, f"task family {family.name!r}"
        self.terms: RewardSum | None = None
        if self.calls.rewards is not None:
            has_command = self.calls.has_command
            self.terms = RewardSum(
                self.calls.rewards,
                robot,
                size,
                where,
                has_command=has_command,
                ground=self.calls.ground,
            )
            signals = (*signals, *self.terms.signals)
        more = privileged_signals(robot, family, privileged)
        check_signals((*signals, *more), self.interface, where)

        def scene(spec: mujoco.MjSpec) -> None:
            self.calls.scene(spec)
            for signal in signals:
                signal.add_to(spec, where)
            for signal in more:
                signal.add_to(spec, f"robot {robot.name!r}")

        model = robot.compile(scene)
        self.physics = BatchedPhysics(self.interface, model, size, threads, (*signals, *more))
        if family.places and not self.physics.movable:
            raise UserError(
                f"task family {family.name!r} needs a robot that can be put somewhere: robot "
                f"{robot.name!r} has neither a body 'base_link' on a free joint nor a term "
                "'position' from two slides"
            )
        self.varied: PerturbedSim | None = None
        if (sim_params or NOMINAL, domain_randomization or NOMINAL) != (NOMINAL, NOMINAL):
            both = sim_params or NOMINAL, domain_randomization or NOMINAL
            self.varied = PerturbedSim(self.physics, self.interface, *both)
        sizes = self.physics.signal_sizes if privileged else {}
        self.privileged = Privileged(privileged, self.interface, sizes, self._drawn.shape[1])
        self.layout: EpisodeState = {}
        self.difficulty = 1.0
        self.ticks = np.zeros(size, np.int64)  # (B,) since the episode began
        self.command = np.tile(self.interface.safe_command, (size, 1))  # (B, A) in force
        self.failures: list[Failure] = []
        self._diverged = np.zeros(size, bool)  # (B,) in the last tick
        self._before = self.physics.batch.state.copy()
        self._varied_before = np.zeros((size, 0))

    @property
    def size(self) -> int:
        """B, the number of simulations."""
        return self.physics.size

    def reset(
        self, ids: NDArray[np.int32], tasks: Sequence[int], rngs: Sequence[np.random.Generator]
    ) -> None:
        """Begin new episodes in simulations `ids`, each with its task and its randomness.

        Raises:
            ValueError: a task number that the family does not have.
        """
        count = len(self.family.tasks)
        if bad := [task for task in tasks if not 0 <= task < count]:
            raise ValueError(f"{self.family.name} has tasks 0 .. {count - 1}, not {bad[0]}")
        for i, task, rng in zip(ids, tasks, rngs, strict=True):
            drawn = self.calls.reset(int(task), rng, self.layout, self.difficulty)
            for name, row in drawn.items():
                if name not in self.layout:
                    self.layout[name] = np.zeros((self.size, *np.shape(row)))
                self.layout[name][i] = row
        shake = self.calls.shake
        turns = [rng.uniform(-shake, shake, self.physics.hinges) for rng in rngs] if shake else []
        if self.varied is not None:  # the last: the rest is as it would be without
            self.varied.draw(ids, rngs)
        self.physics.reset(ids)
        if self.calls.solid:
            mine = {name: value[ids] for name, value in self.layout.items()}
            places = self.calls.place(mine, self.physics.model)
            self.physics.set_mocap_poses(ids, places)
        if self.family.places:
            self.physics.teleport(ids, self.layout["start"][ids])
        if turns:
            self.physics.perturb_joints(ids, np.array(turns))
        self.ticks[ids] = 0
        self._diverged[ids] = False
        if self.varied is not None:
            self.varied.begin(ids, self.physics.fields())
        self._begin_commands(ids)

    def _begin_commands(self, ids: NDArray[np.int32]) -> None:
        """Set the commands to the robot's measured state, as at the start of every session."""
        shown = {name: value[ids] for name, value in self.measurements(self.true_state()).items()}
        self.command = self.command.copy()  # it may be the caller's, see `step_command`
        self.command[ids] = self.interface.initial_command(shown)
        if self.varied is not None:
            self.varied.hold(ids, self.command[ids])
        if self.terms is not None:
            self.terms.begin(ids, self.interface.action_for(self.command[ids]))

    def true_state(self) -> dict[str, Floats]:
        """Every observation term's true value, (B, size); without the signals."""
        robot = self.physics.fields()
        return {**robot, **self.calls.fields(self.layout, robot)}

    @property
    def _drawn(self) -> Floats:
        """(B, n) the sim parameters that the episodes drew."""
        return np.zeros((self.size, 0)) if self.varied is None else self.varied.drawn

    def privileged_values(self, fields: dict[str, Floats] | None = None) -> NDArray[np.float32]:
        """(B, P) privileged values.

        Args:
            fields: true values with the signals; by default those of the present state.
        """
        if fields is None:
            fields = {**self.true_state(), **self.physics.signals()}
        return self.privileged.values(fields, self._drawn)

    def measurements(self, fields: dict[str, Floats]) -> dict[str, Floats]:
        """Returns the sensor values (B, size) per term; `fields` are the present true values."""
        return fields if self.varied is None else self.varied.measurements(fields)

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Floats], StepResult]:
        """One tick with a policy's action (B, A); see `evaluate_step`."""
        return self.step_command(self.interface.command(action, self.command))

    def step_command(self, command: Floats) -> tuple[dict[str, Floats], StepResult]:
        """One tick with a command (B, A) that has passed `Interface.command` already.

        See `evaluate_step`.
        """
        self.command = command
        self._before[:] = self.physics.batch.state
        if self.varied is not None:
            self._varied_before = self.varied.state.copy()
        self.step_physics(command, self.interface.substeps)
        return self.evaluate_step()

    def step_physics(self, command: Floats, steps: int) -> None:
        """Hold a command (B, A) for a tick or, with `steps` 1, for one physics step of it."""
        if self.varied is not None:
            self.varied.advance(command, steps)
        elif steps == 1:
            self.physics.substep(command)
        else:
            self.physics.step(command)

    def evaluate_step(self) -> tuple[dict[str, Floats], StepResult]:
        """Evaluate a simulated tick: returns the true fields with the signals, and its result.

        A simulation that has diverged is reset to the model's defaults, so that its fields are
        finite; its reward is 0, its episode is truncated, and it is not solved.
        """
        self.ticks += 1
        diverged = self.physics.diverged()
        self._diverged = diverged.copy()
        ids = np.flatnonzero(diverged).astype(np.int32)
        if len(ids):
            self._remember(ids)
            self.physics.reset(ids)
        self._put_upright(diverged)
        fields = self.true_state()
        changes = self.calls.advance(self.layout, fields, self.interface.control_dt)
        for name, value in changes.items():
            self.layout[name][:] = value
        if self.varied is not None:
            self.varied.tick(fields, ids)
        fields |= self.physics.signals()
        terminated = self.calls.terminated(self.layout, fields) & ~diverged
        return fields, StepResult(
            reward=np.where(diverged, 0.0, self._reward(fields)),
            terminated=terminated,
            truncated=((self.ticks >= self.max_episode_steps) | diverged) & ~terminated,
            diverged=diverged,
        )

    def _reward(self, fields: dict[str, Floats]) -> Floats:
        reward = self.calls.reward(self.layout, fields)
        if not self.calls.has_cost and self.terms is None:
            return reward
        action = self.interface.action_for(self.command)
        if self.calls.has_cost:
            reward = reward - self.calls.cost(action)
        if self.terms is not None:
            reward = reward + total(self._weighted(self.terms, fields, action))
        return reward

    def _weighted(self, terms: RewardSum, fields: dict[str, Floats], action: Floats) -> Floats:
        """Returns what each reward term brings in this tick, (B, terms)."""
        command = np.zeros((self.size, 0))
        if terms.needs_command:
            command = self.calls.command(self.layout)
        return terms.evaluate(fields, command, action, self.interface.control_dt)

    def success(self, fields: dict[str, Floats]) -> NDArray[np.bool_]:
        """(B,) True where the state counts as solved, given the true fields with the signals.

        Never where the simulation has diverged in the last tick: the state is that of the model's
        defaults then, which no policy has reached.
        """
        return self.calls.success(self.layout, fields) & ~self._diverged

    def _put_upright(self, diverged: NDArray[np.bool_]) -> None:
        """Reset the pose of simulations that are due; after the last tick there is no reset."""
        every = self.calls.pose_reset
        if not every:
            return
        due = (self.ticks % every == 0) & (self.ticks < self.max_episode_steps) & ~diverged
        if due.any():
            self.physics.reset_pose(np.flatnonzero(due).astype(np.int32))

    def _remember(self, ids: NDArray[np.int32]) -> None:
        for i in ids[: FAILURES - len(self.failures)]:
            tick = int(self.ticks[i]) - 1
            before = self._before[i].copy(), self.command[i].copy(), self._varied_before[i].copy()
            self.failures.append(Failure(int(i), tick, *before))

    def repeat(self, failure: Failure) -> bool:
        """Simulate a failed tick once more, in simulation 0; True if it fails again.

        Raises:
            ValueError: it failed with another model, or with other sim parameters.
        """
        varied = np.zeros(0) if self.varied is None else self.varied.state[0]
        for what, kept, own in (
            ("state", failure.state, self.physics.batch.state[0]),
            ("command", failure.command, self.command[0]),
            ("sim parameters", failure.varied, varied),
        ):
            if kept.shape != own.shape:
                raise ValueError(f"{what}: {kept.size} numbers, not {own.size}")
        if self.varied is not None:
            self.varied.restore(failure.varied[None], np.zeros(1, np.int32))
        self.physics.batch.state[0] = failure.state
        command = self.command.copy()
        command[0] = failure.command
        self.step_physics(command, self.interface.substeps)
        return bool(self.physics.diverged()[0])

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """Everything that the next tick depends on, as arrays."""
        own = {"ticks": self.ticks.copy(), "command": self.command.copy()}
        layout = {f"layout.{name}": value.copy() for name, value in self.layout.items()}
        if self.varied is not None:
            own["varied"] = self.varied.state.copy()
        more = {} if self.terms is None else self.terms.snapshot()
        return {**self.physics.snapshot(), **own, **layout, **more}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot`, bit for bit.

        Raises:
            ValueError: the snapshot is of another model, other sim parameters or
                another number of simulations.
        """
        if ("varied" in state) != (self.varied is not None):
            raise ValueError("the snapshot has other sim parameters: one is nominal, one is not")
        self.physics.restore(state)
        if self.varied is not None:
            self.varied.restore(state["varied"].astype(np.float64))
        if self.terms is not None:
            self.terms.restore(state)
        self.ticks[:] = state["ticks"]
        self._diverged[:] = False
        self.command = state["command"].astype(np.float64)
        prefix = "layout."
        self.layout = {
            key.removeprefix(prefix): value.astype(np.float64)
            for key, value in state.items()
            if key.startswith(prefix)
        }
