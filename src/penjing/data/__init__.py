"""Rows: read, check, clean, split, tokenize, batch. Nothing here knows about models."""
