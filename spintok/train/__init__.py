"""Training a tokenizer: recipes, the stages (K-means, masked prediction, CTC, Spin) and the loop they share.

Nothing used to tokenize imports it.
"""
