"""The MuJoCo model of a robot, addresses in it, and batches of simulations."""
