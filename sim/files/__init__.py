"""Reading and writing the files of a user: strict YAML and JSON, lookup by name, whole files."""
