"""The gap between a robot and its simulation, measured from recordings.

`signals` reads, `twin` simulates what was recorded, `compare` measures the difference, `causes`
looks for what explains it, `health` judges messages and ticks, `score` what the robot earned,
`findings` says it in words, `analysis` puts it together, `page` and `plots` show it.
"""
