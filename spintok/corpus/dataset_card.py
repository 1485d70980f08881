"""The README.md with which Hugging Face's ``datasets.load_dataset(folder)`` opens a folder of tokens as it is."""

from collections.abc import Iterable

__all__ = ["card_header", "dataset_card"]

_TYPES = {
    "key": "string",
    "file_name": "string",
    "speaker": "string",
    "num_samples": "int64",
    "num_frames": "int64",
}


def dataset_card(mark: str, format: str, tokenizer: str, arrays: Iterable[str]) -> str:
    """A dataset card: the shards are the data, not the other JSON files of the folder.

    Args:
        mark: a YAML comment for the second line.
        format: the suffix of the shards.
        tokenizer: its name.
        arrays: the names of the columns of codes and durations.
    """
    # Types are stated because a shard in which no speaker is known would make another type of the column.
    columns = [f"  - name: {name}\n    dtype: {dtype}" for name, dtype in _TYPES.items()]
    columns += [f"  - name: {name}\n    sequence: int32" for name in arrays]
    described = "\n".join(columns)
    header = card_header(f"tokens-*.{format}", before=f"{mark}\n", after=f"dataset_info:\n  features:\n{described}\n")
    return f"""{header}
# Speech tokens

Made by `spintok encode` with the tokenizer {tokenizer!r}; `tokenizer.json` describes the files.

```python
from datasets import load_dataset

tokens = load_dataset("path/of/this/folder", split="train")
```
"""


def card_header(data_files: str, *, before: str = "", after: str = "") -> str:
    """The YAML header of a dataset card, which says that the files of this pattern are the data.

    ``data_files`` has to be a plain YAML string; ``before`` and ``after`` are further lines of YAML.
    """
    return f"""---
{before}configs:
- config_name: default
  data_files:
  - split: train
    path: {data_files}
{after}---
"""
