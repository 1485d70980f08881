"""The tokenizers that ship with spintok, a folder each."""
