"""Recordings as time series, cut into windows."""
