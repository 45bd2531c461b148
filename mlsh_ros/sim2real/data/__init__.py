"""Recordings as time series, divided into windows."""
