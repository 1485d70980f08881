"""Tokens for language models: files that other tools read, an extended vocabulary, sequences, packed data sets.

``targets`` and ``dataset`` write a corpus; ``vocabulary``, ``hf_tokenizer`` and ``embeddings`` make a language model
speak; ``sequence``, ``speech_text``, ``dialogue`` and ``codebooks`` lay tokens out; ``packing`` makes windows of them;
``bpe`` shortens them.
"""

__all__: list[str] = []
