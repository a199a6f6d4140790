"""Wiring, no maths: (Spec, Run) -> result."""
