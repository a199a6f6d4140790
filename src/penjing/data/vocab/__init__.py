"""Tokenizers: learnt from a corpus, measured on texts."""
