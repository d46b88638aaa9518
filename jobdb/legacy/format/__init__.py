"""The formats of the old registry: records, logs and audit files, parsed and rendered. Pure: no file, no database."""
