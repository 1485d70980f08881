"""spintok turns speech into tokens for language models."""
