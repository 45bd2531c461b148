"""MLSH (Frans et al. 2017): skills and masters, rollouts, PPO, and the training loop."""
