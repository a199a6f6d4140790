"""Entities of texts: what a model says of them, and what that is worth."""
