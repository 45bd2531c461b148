"""Bundles: ONNX skills and masters with a manifest; export, checks and runtime."""

import os

# ONNX Runtime of 1.29 and later otherwise keeps a database on the disk and reports over the
# network how it is used. Read when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
