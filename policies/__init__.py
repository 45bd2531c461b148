"""Learning, export and runtime of hierarchical policies.

A robot needs `policies.bundle` only (numpy, onnxruntime, pydantic).
"""
