"""Makes skills of policies of other trainers (`mlsh import-skill`); `importer.py` does it."""
