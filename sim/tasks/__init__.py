"""Task families: what a robot is asked to do, one file each, listed in `sim.tasks.registry`."""
