"""Named reward terms, whose weights are data: any task family can declare `rewards`.

parts.py       parts of a robot's model that terms read, and their signals
motion.py      what a term is computed from: the state after a tick, and what it remembers
terms.py       the terms that ship: `TERMS`, each with its unit and its sources
weights.py     `Rewards`: terms with their weights, from a mapping or a YAML file
reward_sum.py  the weighted sum for n simulations, with its memory
walking.yaml   weights for a robot that walks
"""

from sim.tasks.rewards.motion import Motion
from sim.tasks.rewards.terms import TERMS, RewardTerm
from sim.tasks.rewards.weights import Rewards, changing, read_rewards, rewards_from

__all__ = [
    "TERMS",
    "Motion",
    "RewardTerm",
    "Rewards",
    "changing",
    "read_rewards",
    "rewards_from",
]
