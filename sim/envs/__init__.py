"""Closed-loop environments over physics and a task family, and their reference returns."""
