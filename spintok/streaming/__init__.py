"""Tokens while audio arrives; ``Tokenizer.stream`` and ``Tokenizer.stream_pool`` are the way in."""
