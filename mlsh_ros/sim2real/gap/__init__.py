"""The gap between a robot and its simulation, measured from recordings.

`comparison` simulates what was recorded and measures the difference, `hypotheses` looks for what
explains it, `data_quality` judges messages and ticks, `closed_loop_return` compares the returns of
robot and simulation, `findings` describes the results, `analysis` combines them, `report` and
`plots` show them.
"""
