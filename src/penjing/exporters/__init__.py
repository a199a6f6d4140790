"""Targets of `penjing export`, a file each: a tuned model as another library reads it (contract:
exporter.py)."""
