"""Simulation in MuJoCo: robots as data, task families, batches of simulations.

`sim.interface` needs numpy and pydantic only, because it also runs on the robot; everything else
in this package needs MuJoCo. `import sim.envs.gym_env` registers the gymnasium environments.
"""
