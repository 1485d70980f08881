"""How predictable tokens are for a language model: n-gram cross-entropy and BPE compression.

Tokens are de-duplicated codes. Utterances are split into folds, and each fold is scored by models of the others.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.evaluate.ngram import NgramModel
from spintok.export.bpe import UnitBpe
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

    Byte-pair encoding over codes (Sennrich et al. 2016), the same that ``spintok export --to bpe`` writes; a merge
    never spans utterances. Raises ``MissingPackageError`` without Hugging Face's ``tokenizers``.
    """
    sequences = (np.array(sequence, dtype=np.int32) for sequence in train)
    bpe = UnitBpe.train(sequences, codebook_size, codebook_size + merges, fingerprint="", dedup=True)
    return [ids.size for ids in bpe.encode_batch([np.array(sequence, dtype=np.int32) for sequence in test])]


def _missing(inputs: MetricInputs) -> str | None:
    return "there is only one utterance" if len(inputs.dataset.utterances) < 2 else None


def _measure(inputs: MetricInputs) -> Result:
    options = inputs.options
    ratios = predictability(inputs.encoded.tokens, order=options.order, seed=options.seed, merges=options.merges)
    return bootstrapped(ratios, inputs)


METRIC = Metric("predictability", _measure, _missing, package=("tokenizers", "tokenizers"))
