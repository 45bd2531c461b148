"""Training runs: folder, checkpoints, metrics, and the adaptation of new masters."""
