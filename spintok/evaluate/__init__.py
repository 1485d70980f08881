"""Measures of a tokenizer and its tokens, a family a file; ``spintok.evaluate.evaluation`` runs them together."""
