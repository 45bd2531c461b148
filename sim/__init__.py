"""MuJoCo: robots as data, task families, many simulations at once.

`sim.interface` needs numpy and pydantic only, because it also runs on the robot; everything else
in this package needs MuJoCo. `import sim.envs.gym_env` registers the gymnasium environments.
"""
