"""Actor-critic networks of the K shared skills and of one master per group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.mlsh.config import NetworkConfig, PpoConfig
from policies.mlsh.networks import Adam, Normalizer, StackedMLP
from sim.seeding import Stream, generator

POLICY_GAIN = 0.01  # small first outputs: uniform masters, resting skills
VALUE_GAIN = 1.0


class ActorCriticBatch:
    """S actor-critics of one level: policies, value functions and optimizer states.

    Args:
        count: S.
        inputs: O.
        outputs: K for masters (logits), A for skills (mean actions).
        network: shapes of this level and the first log standard deviation.
        ppo: hyper-parameters.
        log_stds: A for skills, 0 for masters.
        masked_inputs: elements of the observation that the policies do not see.
        masked_value_inputs: those that the value functions do not see.
        privileged: P, further elements that the value functions alone see, behind the observation.
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        network: NetworkConfig,
        ppo: PpoConfig,
        log_stds: int,
        masked_inputs: Sequence[int] = (),
        masked_value_inputs: Sequence[int] = (),
        privileged: int = 0,
    ) -> None:
        self.ppo = ppo
        self.initial_log_std = network.initial_log_std
        self.policy = StackedMLP(
            count, (inputs, *network.hidden, outputs), log_stds, masked_inputs, network.activation
        )
        self.value = StackedMLP(
            count,
            (inputs + privileged, *network.value_sizes, 1),
            masked_inputs=masked_value_inputs,
            activation=network.activation,
        )
        self.policy_adam = Adam(self.policy.numpy, ppo.learning_rate, ppo.adam_epsilon)
        self.value_adam = Adam(self.value.numpy, ppo.learning_rate)

    @property
    def count(self) -> int:
        """S, number of policies."""
        return self.policy.count

    def reset(self, row: int, rng: np.random.Generator, *, adam: bool = True) -> None:
        """Start row `row` anew: weights, and the optimizer's moments unless `adam` is False."""
        self.policy.initialize(row, rng, output_gain=POLICY_GAIN, log_std=self.initial_log_std)
        self.value.initialize(row, rng, output_gain=VALUE_GAIN)
        if adam:
            self.policy_adam.reset(row)
            self.value_adam.reset(row)

    def values(self, x: NDArray[np.float32], row: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n,) return predicted by value function `row[i]` for its input x[i] (n, O + P)."""
        out = np.empty(len(x), np.float32)
        for k in np.unique(row):
            mine = np.flatnonzero(row == k)
            out[mine] = self.value.forward_row(int(k), x[mine])[:, 0]
        return out

    def state(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Weights and optimizer as arrays."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, stack, adam in (
            ("policy", self.policy, self.policy_adam),
            ("value", self.value, self.value_adam),
        ):
            arrays[f"{prefix}.{name}"] = stack.numpy.copy()
            arrays[f"{prefix}.{name}.first"] = adam.first.copy()
            arrays[f"{prefix}.{name}.second"] = adam.second.copy()
            arrays[f"{prefix}.{name}.steps"] = adam.steps.copy()
        return arrays

    def restore(self, prefix: str, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`.

        Raises:
            KeyError: an array is missing.
            ValueError: an array has another shape.
        """
        for name, stack, adam in (
            ("policy", self.policy, self.policy_adam),
            ("value", self.value, self.value_adam),
        ):
            put(arrays, f"{prefix}.{name}", stack.numpy)
            put(arrays, f"{prefix}.{name}.first", adam.first)
            put(arrays, f"{prefix}.{name}.second", adam.second)
            put(arrays, f"{prefix}.{name}.steps", adam.steps)


class Agent:
    """Masters and skills, and the observation statistics that belong to the skills.

    Args:
        observation_size: O.
        action_size: A.
        skills: K.
        groups: G, the number of masters.
        group_ids: (G,) their numbers, where these are some of many; by default from 0 on.
        network: shapes of both levels.
        master: hyper-parameters of the masters' level.
        skill: hyper-parameters of the skills' level.
        seed: of the initial weights.
        masked_inputs: elements of the observation that the skills do not see; their value
            functions do.
        masked_master_inputs: those that the masters and their value functions do not see.
        privileged: P, elements that the skills' value functions see beside the observation.
    """

    def __init__(
        self,
        *,
        observation_size: int,
        action_size: int,
        skills: int,
        groups: int,
        network: NetworkConfig,
        master: PpoConfig,
        skill: PpoConfig,
        seed: int,
        group_ids: Sequence[int] | None = None,
        masked_inputs: Sequence[int] = (),
        masked_master_inputs: Sequence[int] = (),
        privileged: int = 0,
    ) -> None:
        self.masters = ActorCriticBatch(
            groups,
            observation_size,
            skills,
            network.of_masters,
            master,
            log_stds=0,
            masked_inputs=masked_master_inputs,
            masked_value_inputs=masked_master_inputs,
        )
        self.skills = ActorCriticBatch(
            skills,
            observation_size,
            action_size,
            network.of_skills,
            skill,
            action_size,
            masked_inputs,
            privileged=privileged,
        )
        self.normalizer = Normalizer(observation_size)
        self.privileged_normalizer = Normalizer(privileged)
        # Per skill a network from observations (n, O), not normalized, to actions (n, A), in place
        # of `skills`: those of a bundle that were trained elsewhere. Empty: there are none.
        self.imported_skills: tuple[Callable[[NDArray[np.float32]], NDArray[np.float32]], ...] = ()
        self.learns_statistics = network.normalize_observations
        for k in range(skills):
            self.skills.reset(k, generator(seed, Stream.INIT, 0, k))
        for g, number in enumerate(range(groups) if group_ids is None else group_ids):
            self.masters.reset(g, generator(seed, Stream.INIT, 1, number))

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, K) logits of every group's master for normalized observations x (B, O)."""
        groups = self.masters.count
        y = x.reshape(groups, -1, x.shape[-1])
        return self.masters.policy.forward_numpy(y).reshape(len(x), -1)

    def means(
        self,
        x: NDArray[np.float32],
        skill: NDArray[np.intp],
        raw: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """(n, A) mean action of each row's own skill.

        Args:
            x: (n, O) normalized observations.
            skill: (n,) of each row.
            raw: (n, O) the same observations, not normalized; imported skills need them.
        """
        out = np.empty((len(x), self.skills.policy.sizes[-1]), np.float32)
        for k in range(self.skills.count):
            rows = np.flatnonzero(skill == k)
            if len(rows) and self.imported_skills and raw is not None:
                out[rows] = self.imported_skills[k](raw[rows])
            elif len(rows):
                out[rows] = self.skills.policy.forward_row(k, x[rows])
        return out

    def log_std(self) -> NDArray[np.float32]:
        """(K, A) logarithm of the standard deviation of the skills' exploration."""
        return np.stack([self.skills.policy.log_std(k) for k in range(self.skills.count)])

    def limit_std(self, most: float) -> None:
        """Reduce standard deviations of the skills' exploration that are larger than `most`."""
        for k in range(self.skills.count):
            log_std = self.skills.policy.log_std(k)  # a view
            np.minimum(log_std, np.float32(np.log(most)), out=log_std)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """All learned parameters, as arrays."""
        return {
            **self.skills.state("skills"),
            **self.masters.state("masters"),
            **normalizer_state(self.normalizer, "observation"),
            **self._privileged_state(),
        }

    def _privileged_state(self) -> dict[str, NDArray[np.generic]]:
        normalizer = self.privileged_normalizer
        return normalizer_state(normalizer, "privileged") if len(normalizer.mean) else {}

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore from arrays of `state`."""
        self.restore_skills(arrays)
        self.masters.restore("masters", arrays)

    def restore_skills(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Restore the skills and their observation statistics alone."""
        self.skills.restore("skills", arrays)
        restore_normalizer(self.normalizer, "observation", arrays)
        if len(self.privileged_normalizer.mean):
            restore_normalizer(self.privileged_normalizer, "privileged", arrays)


def put(arrays: dict[str, NDArray[np.generic]], name: str, target: NDArray[Any]) -> None:
    """Copy an array of a state into `target`; unlike plain assignment it does not broadcast.

    Raises:
        KeyError: there is no such array.
        ValueError: it has another shape.
    """
    if arrays[name].shape != target.shape:
        raise ValueError(f"{name} has shape {arrays[name].shape}, not {target.shape}")
    target[...] = arrays[name]


def normalizer_state(normalizer: Normalizer, prefix: str) -> dict[str, NDArray[np.generic]]:
    """Parameters of a normalizer, as arrays."""
    return {
        f"{prefix}.count": np.array(normalizer.count),
        f"{prefix}.mean": normalizer.mean.copy(),
        f"{prefix}.square": normalizer.square.copy(),
    }


def restore_normalizer(
    normalizer: Normalizer, prefix: str, arrays: dict[str, NDArray[np.generic]]
) -> None:
    """Restore from arrays of `normalizer_state`."""
    normalizer.count = float(arrays[f"{prefix}.count"])
    put(arrays, f"{prefix}.mean", normalizer.mean)
    put(arrays, f"{prefix}.square", normalizer.square)
