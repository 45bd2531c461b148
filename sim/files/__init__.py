"""Reads and writes users' files: strict YAML and JSON, lookup by name, atomic output."""
