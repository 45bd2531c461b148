"""The gap between a robot and its simulation, measured from recordings.

`comparison` simulates the recorded commands and measures the difference, `hypotheses` searches for
its causes, `data_quality` checks messages and ticks, `closed_loop_return` compares the returns of
robot and simulation, `findings` describes the results, `analysis` combines them, `report` and
`plots` display them.
"""
