"""Training runs: run folder, checkpoints, metrics, and adaptation to new tasks."""
