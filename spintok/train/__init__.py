"""Fitting tokenizers; nothing used to tokenize imports it."""
