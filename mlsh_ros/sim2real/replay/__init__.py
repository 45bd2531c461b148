"""Open-loop replay of recorded commands in simulation, and its residuals."""
