"""Add speech tokens to a Hugging Face tokenizer: text keeps its ids, and every speech token is one id."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spintok._files import require
from spintok.export.errors import ExportError
from spintok.export.sequences.base import TextEncoder
from spintok.export.vocabulary import SPECIALS, VOCABULARY_FILE, Vocabulary
from spintok.hub.huggingface import check_repository

__all__ = ["extend_tokenizer", "text_encoder"]

_OURS = re.compile(
    r"""tokenizer\.json | tokenizer_config\.json | special_tokens_map\.json | added_tokens\.json | vocab\.(json|txt)
    | merges\.txt | [\w.-]+\.model | [\w.-]+\.tiktoken | chat_template\.jinja | additional_chat_templates
    | vocabulary\.spintok\.json""",
    re.VERBOSE,
)
"""What ``save_pretrained`` of a tokenizer writes, and the vocabulary. Only a folder of these may be replaced."""


def extend_tokenizer(
    base: str | Path,
    output: Path,
    *,
    tokenizer: str,
    fingerprint: str,
    codebooks: Mapping[str, int],
    template: str = "<|s_{}|>",
    specials: Mapping[str, str] = SPECIALS,
    durations: int = 0,
    duration_template: str = "<|d_{}|>",
    overwrite: bool = False,
    offline: bool | None = None,
) -> Vocabulary:
    """Add speech tokens to a tokenizer, and save it to a folder for ``AutoTokenizer.from_pretrained``.

    The base is loaded without running any code that comes with it.

    Args:
        base: a folder, or a name that ``AutoTokenizer`` can download.
        output: the folder to write, with the vocabulary as ``vocabulary.spintok.json``. It appears only when complete.
        tokenizer, fingerprint, codebooks: those of the speech tokenizer; see ``Vocabulary``.
        template, specials, durations, duration_template: see ``Vocabulary``.
        overwrite: replace an earlier result.
        offline: read a name from the cache of the Hub only; by default SPINTOK_OFFLINE decides.

    Returns:
        The ids of the added tokens.

    Raises:
        ExportError: the base cannot be loaded, already has one of the tokens, or has gaps in its ids; or ``output``
            holds something else.
    """
    extended = _load(base, offline)
    known = extended.get_vocab()
    vocabulary = Vocabulary(
        tokenizer,
        fingerprint,
        dict(codebooks),
        first_id=max(known.values(), default=-1) + 1,
        template=template,
        specials=dict(specials),
        durations=durations,
        duration_template=duration_template,
    )
    taken = [text for text in vocabulary.texts if text in known]
    if taken:
        raise ExportError(
            f"{base}: has the token {taken[0]!r} already ({len(taken)} in all); choose another --template or --special"
        )
    if _exists(output, vocabulary, overwrite):
        return vocabulary
    _add(extended, vocabulary)
    if extended.convert_tokens_to_ids(vocabulary.texts) != list(range(vocabulary.first_id, vocabulary.size)):
        raise ExportError(f"{base}: its ids have gaps, so new tokens would not be contiguous")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp"))
    try:
        extended.save_pretrained(scratch)
        vocabulary.save(scratch / VOCABULARY_FILE)
        if _load(scratch).convert_tokens_to_ids(vocabulary.texts[-1]) != vocabulary.size - 1:
            raise ExportError(f"{base}: a tokenizer of this kind does not keep added tokens when it is saved")
        if output.exists():
            shutil.rmtree(output)
        scratch.chmod(0o755)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return vocabulary


def text_encoder(folder: str | Path) -> TextEncoder:
    """A function from text to the ids of the tokenizer in a folder, without begin or end tokens."""
    tokenizer = _load(folder)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def _load(source: str | Path, offline: bool | None = None) -> Any:
    transformers = require("transformers", extra="export", purpose="--to hf-tokenizer")
    cached = True
    if not Path(source).is_dir():
        # Asked for first: transformers would try for a minute, and print each failure.
        cached = check_repository(str(source), offline=offline)
    try:
        # False, not the default None, which asks on a terminal whether to run the code of the folder.
        return transformers.AutoTokenizer.from_pretrained(str(source), trust_remote_code=False, local_files_only=cached)
    except Exception as error:
        # Exceptions of many kinds come from a damaged folder.
        message = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in message:
            message = "its tokenizer is Python code that comes with it, which spintok does not run"
        raise ExportError(f"{source}: no tokenizer that transformers can load ({message})") from None


def _add(extended: Any, vocabulary: Vocabulary) -> None:
    added = require("tokenizers", extra="export", purpose="--to hf-tokenizer").AddedToken
    names = set(vocabulary.specials.values())
    # Codes are not special tokens: a decoder that skips those must not skip speech.
    for special, texts in (
        (False, [text for text in vocabulary.texts if text not in names]),
        (True, list(vocabulary.specials.values())),
    ):
        extended.add_tokens([added(text, normalized=False, special=special) for text in texts], special_tokens=special)


def _exists(output: Path, vocabulary: Vocabulary, overwrite: bool) -> bool:
    """Whether ``output`` holds this result and is to be kept. Raises ``ExportError`` unless it may be written."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / VOCABULARY_FILE).is_file():
        raise ExportError(f"{output}: not empty, and not a tokenizer of spintok; name another output folder")
    foreign = sorted(path.name for path in output.iterdir() if not _OURS.fullmatch(path.name))
    found = Vocabulary.load(output)
    if found == vocabulary and not overwrite:
        return True
    if foreign:
        raise ExportError(
            f"{output}: holds {foreign[0]!r}, which is not part of a tokenizer and would be deleted; name another "
            "output folder"
        )
    if not overwrite:
        raise ExportError(f"{output}: holds another extended tokenizer; name another output folder, or add --overwrite")
    return False
