"""Environments of gymnasium, and what their tests do with them."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from sim.envs.gym_env import environment_id
from sim.tasks.registry import FAMILIES

BANDITS = "mlsh/MovingBandits-v0"
IDS = {environment_id(name): name for name in FAMILIES}
BOTH = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda *a, **k: gymnasium.make(*a, **k), id="make"),
        pytest.param(lambda *a, **k: gymnasium.make_vec(*a, num_envs=2, **k), id="make_vec"),
    ],
)


def actions(count: int, b: int, a: int, seed: int = 0) -> np.ndarray:
    """(count, B, A) that lead somewhere: a direction per row, and noise."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-0.3, 0.3, (count, b, a))
    return (rng.uniform(-0.7, 0.7, (b, a)) + noise).astype(np.float32)


def agree(ours, theirs) -> tuple:
    """What both return, which is the same to the bit, the infos and their types included."""
    assert data_equivalence(ours, theirs, exact=True), (ours, theirs)
    return ours


def one_line(error: pytest.ExceptionInfo) -> None:
    assert "\n" not in str(error.value)
