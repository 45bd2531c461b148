"""MuJoCo: the model of a robot, addresses in it, and many simulations of it at once."""
