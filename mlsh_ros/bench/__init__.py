"""Measurements of the deployment; each is a module to run, see the Makefile."""
