"""The method: skills and masters, experience, PPO, and the loop of Frans et al. 2017."""
