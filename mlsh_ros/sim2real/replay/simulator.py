"""Batches of simulations that follow recorded commands under parameter columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from mlsh_ros.sim2real.data.windows import delayed
from sim.interface import Floats, Interface
from sim.physics.batched_physics import BatchedPhysics
from sim.randomization.model_fields import ModelFieldWriter
from sim.randomization.parameters import ParameterVector


@dataclass(frozen=True)
class Simulator:
    """Simulates commands open loop.

    Args:
        model: MuJoCo's, nominal.
        interface: with the terms that are read.
        differences: the vector that values are of.
        names: the quantities that may be other than nominal in these values.
        stride: physics steps from sample to sample.
        threads: of the simulation.
    """

    model: mujoco.MjModel
    interface: Interface
    differences: ParameterVector
    names: frozenset[str]
    stride: int
    threads: int = 1
    batches: dict[int, tuple[BatchedPhysics, ModelFieldWriter]] = field(
        default_factory=dict, repr=False
    )

    def physics(self, values: Floats) -> BatchedPhysics:
        """S simulations at the model's defaults, with values (S, n)."""
        size = len(values)
        if size not in self.batches:
            physics = BatchedPhysics(self.interface, self.model, size, self.threads)
            writer = ModelFieldWriter(physics.batch, self.interface, self.differences, self.names)
            self.batches[size] = physics, writer
        physics, writer = self.batches[size]
        ids = np.arange(size, dtype=np.int32)
        physics.reset(ids)
        writer.write(ids, values)
        return physics

    def run(
        self, values: Floats, state: Floats, commands: Sequence[Floats], kept: int = -1
    ) -> tuple[dict[str, Floats], Floats]:
        """Simulate W windows in each of C columns; the windows of the first column come first.

        Args:
            values: (C, n).
            state: (C * W, m) where the windows begin.
            commands: of each column (W, S, A), as they are sent in every physics step.
            kept: the physics step before which the states are kept; none by default.

        Returns:
            Per term (C * W, F, size) the true values, from the start on, and the kept states
            (C * W, m).
        """
        command = self._acting(values, commands)
        physics = self.physics(np.repeat(values, len(command) // len(values), axis=0))
        physics.batch.state[:] = state
        samples = [{name: value.copy() for name, value in physics.refresh_sensors().items()}]
        states = np.zeros_like(state)
        for step in range(command.shape[1]):
            if step == kept:
                states[:] = physics.batch.state
            physics.substep(command[:, step])
            if (step + 1) % self.stride == 0:
                samples.append(physics.fields())
        return {n: np.stack([each[n] for each in samples], axis=1) for n in samples[0]}, states

    def _acting(self, values: Floats, commands: Sequence[Floats]) -> Floats:
        """(C * W, S, A) mean command in every physics step, with delays of any length.

        The measurements therefore change smoothly with a delay.
        """
        if "command_delay" not in self.names:
            return np.concatenate(commands)
        late = self.differences.of(values, "command_delay") / self.interface.physics_dt
        return np.concatenate([delayed(c, each) for c, each in zip(commands, late, strict=True)])
