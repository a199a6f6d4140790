"""Bases: load, run packed, pool, count."""
