"""Bundles: ONNX skills and masters with a manifest; export, checks and runtime."""
