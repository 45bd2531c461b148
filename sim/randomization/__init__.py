"""Deviations from the nominal model: schema, parameter vectors, model fields, sensor model."""
