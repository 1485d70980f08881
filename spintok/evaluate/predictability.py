"""How predictable tokens are for a language model: n-gram cross-entropy and BPE compression.

Tokens are de-duplicated codes. Utterances are split into folds, and each fold is scored by models of the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.evaluate.ngram import NgramModel
from spintok.tokens import Tokens

__all__ = ["METRIC", "bpe_compression", "predictability"]

FOLDS = 5


def predictability(
    tokens: Mapping[str, Tokens], *, order: int = 3, folds: int = FOLDS, seed: int = 0, merges: int | None = None
) -> Ratios:
    """Cross-entropy of held-out tokens under Kneser-Ney models of order 1, 2 and ``order``, and BPE compression.

    ``unigram``, ``bigram`` and ``{order}gram``, each with ``_bits_per_token`` and ``_bits_per_second``: the bits of
    all held-out tokens divided by their number and by their duration. Bits per second do not favour tokenizers that
    emit many easy tokens. ``bpe_tokens_per_token``: BPE tokens over tokens after ``merges`` merges (left out if that
    is None); smaller is more regular.

    Raises:
        ValueError: fewer than two utterances, or an order below 1.
    """
    keys = tuple(tokens)
    if len(keys) < 2:
        raise ValueError(f"predicting held-out utterances takes at least two, got {len(keys)}")
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    folds = min(folds, len(keys))
    fold = np.random.default_rng(seed).permutation(len(keys)) % folds
    units = [tokens[key].units.tolist() for key in keys]
    size = tokens[keys[0]].codebook_size
    names = {1: "unigram", 2: "bigram"}
    bits = {n: np.zeros(len(keys)) for n in sorted({1, 2, order})}
    pieces = np.zeros(len(keys))
    for held in range(folds):
        train = [units[i] for i in np.flatnonzero(fold != held)]
        test = np.flatnonzero(fold == held)
        for n, found in bits.items():
            model = NgramModel(train, n, size)
            found[test] = [model.bits(units[i]) for i in test]
        if merges is not None:
            pieces[test] = bpe_compression(train, [units[i] for i in test], size, merges)
    lengths = np.array([len(one) for one in units], dtype=np.float64)
    seconds = np.array([tokens[key].seconds for key in keys])
    parts = {}
    for n, found in bits.items():
        parts[f"{names.get(n, f'{n}gram')}_bits_per_token"] = (found, lengths)
        parts[f"{names.get(n, f'{n}gram')}_bits_per_second"] = (found, seconds)
    if merges is not None:
        parts["bpe_tokens_per_token"] = (pieces, lengths)
    return Ratios(keys, parts)


def bpe_compression(
    train: Sequence[Sequence[int]], test: Sequence[Sequence[int]], codebook_size: int, merges: int
) -> list[int]:
    """The number of BPE tokens of each test sequence, with ``merges`` merges learned from the training sequences.

    Byte-pair encoding over codes (Sennrich et al. 2016) by Hugging Face's ``tokenizers``; a merge never spans
    utterances. Raises ``ValueError`` without that package.
    """
    try:
        from tokenizers import Tokenizer, models, trainers
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"BPE needs tokenizers ({error}): pip install 'spintok[evaluate]'") from None
    alphabet = [_letter(code) for code in range(codebook_size)]
    bpe = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=codebook_size + merges, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    bpe.train_from_iterator(["".join(alphabet[code] for code in sequence) for sequence in train], trainer)
    texts = ["".join(alphabet[code] for code in sequence) for sequence in test]
    return [len(bpe.encode(text).ids) if text else 0 for text in texts]


def _letter(code: int) -> str:
    """One character per code, none of them special: from U+4E00 up to the surrogates, then from U+10000."""
    return chr(0x4E00 + code) if code < 0xD800 - 0x4E00 else chr(0x10000 + code)


def _missing(inputs: MetricInputs) -> str | None:
    return "there is only one utterance" if len(inputs.dataset.utterances) < 2 else None


def _measure(inputs: MetricInputs) -> Result:
    options = inputs.options
    ratios = predictability(inputs.encoded.tokens, order=options.order, seed=options.seed, merges=options.merges)
    return bootstrapped(ratios, options)


METRIC = Metric("predictability", _measure, _missing, package=("tokenizers", "tokenizers"))
