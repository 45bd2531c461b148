"""Learning, export and runtime of hierarchical policies.

A robot needs `policies.bundle` and `policies.runtime` only (numpy, onnxruntime, pydantic).
"""
