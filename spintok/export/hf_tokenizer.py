"""Any Hugging Face tokenizer, extended with speech tokens: text is encoded as before, speech tokens are whole."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spintok.export.errors import ExportError
from spintok.export.folder import SIDECAR
from spintok.export.optional import optional
from spintok.export.sequences.base import TextEncoder
from spintok.export.vocabulary import SPECIALS, VOCABULARY_FILE, Vocabulary

__all__ = ["extend_tokenizer", "text_encoder"]


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
) -> Vocabulary:
    """Add speech tokens to a tokenizer and save both as a folder for ``AutoTokenizer.from_pretrained``.

    Args:
        base: a folder, or a name that ``AutoTokenizer`` knows.
        output: the folder to write, with the offset map as ``vocabulary.spintok.json``; whole or not at all.
        tokenizer, fingerprint, codebooks: whose codes the new tokens stand for.
        template, specials, durations, duration_template: see ``Vocabulary``.
        overwrite: replace an earlier result.

    Raises:
        ExportError: the base has a token of such a name, or its ids have gaps; or ``output`` is not ours to write.
    """
    extended = _load(base)
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
    if _already(output, vocabulary, overwrite):
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


def _load(source: str | Path) -> Any:
    try:
        return optional("transformers").AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{source}: no tokenizer that transformers can load ({error})") from None


def _add(extended: Any, vocabulary: Vocabulary) -> None:
    added = optional("tokenizers").AddedToken
    names = set(vocabulary.specials.values())
    # Codes are not special: a decoder that skips special tokens must not skip speech.
    for special, texts in (
        (False, [text for text in vocabulary.texts if text not in names]),
        (True, list(vocabulary.specials.values())),
    ):
        extended.add_tokens([added(text, normalized=False, special=special) for text in texts], special_tokens=special)


def _already(output: Path, vocabulary: Vocabulary, overwrite: bool) -> bool:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    if not (output / VOCABULARY_FILE).is_file() or (output / SIDECAR).exists():
        raise ExportError(f"{output}: not empty, and not a tokenizer of spintok's; name another output folder")
    if not overwrite and Vocabulary.load(output) != vocabulary:
        raise ExportError(f"{output}: holds another extended tokenizer; name another output folder, or add --overwrite")
    return not overwrite


def text_encoder(folder: str | Path) -> TextEncoder:
    """Text to ids with the tokenizer in a folder, no begin or end tokens added."""
    tokenizer = _load(folder)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode
