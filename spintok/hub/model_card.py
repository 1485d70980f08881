"""The model card of a published tokenizer: metadata that the Hugging Face Hub reads, and how to use it."""

import json
from collections.abc import Mapping

__all__ = ["model_card"]


def model_card(repository: str, rows: Mapping[str, str], licence: str, description: str) -> str:
    """The README.md of a tokenizer.

    Args:
        repository: ORG/NAME.
        rows: the rows of the table, by name.
        licence: the licence of the weights, as the Hub spells it: "mit", "cc-by-4.0", ...
        description: one line.
    """
    metadata = {
        "license": licence,
        "library_name": "spintok",
        "pipeline_tag": "feature-extraction",
        "tags": ["speech", "tokenizer", "discrete-units"],
        "description": description,
    }
    # Values in JSON are YAML too.
    head = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items())
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{head}
---
# {repository.rpartition("/")[2]}
{description}

| | |
|---|---|
{table}

```python
import spintok

tokenizer = spintok.load("{repository}")
tokens = tokenizer.encode("speech.wav")
```
"""
