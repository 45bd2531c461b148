"""Scores of a bundle in simulation or through the nodes, and their report."""
