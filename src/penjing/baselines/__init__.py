"""Cheap baselines beside the one of labels (baseline.py): numbers, pairs of texts, search."""
