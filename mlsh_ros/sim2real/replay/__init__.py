"""Recorded commands, played again in simulation, and what remains."""
