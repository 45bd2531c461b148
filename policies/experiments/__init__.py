"""Comparisons over seeds and variants: sweeps, ablations, baselines, transfer."""
