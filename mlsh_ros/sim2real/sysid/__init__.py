"""System identification of a robot's simulation parameters from recordings."""
