"""From recordings of a robot to the differences between it and its simulation."""
