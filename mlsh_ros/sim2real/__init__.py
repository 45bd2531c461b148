"""Compares recordings of a robot with its simulation and identifies its parameters."""
