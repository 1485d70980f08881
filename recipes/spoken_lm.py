"""Train a small language model on the tokens of a folder of speech, on a CPU, in some minutes.

    python recipes/spoken_lm.py SPEECH WORK --tokenizer mfcc-kmeans-100 --split speaker

The script encodes the speech, exports it as packed windows, and trains a small causal model of ``transformers`` on
them. On held-out utterances it reports perplexity and bits per second, compared with a unigram and a bigram model, and
how often the model prefers a real utterance to the same utterance shuffled in time; with --pairs, words to non-words
of recipes/word_pairs.py. Intervals are 95 % bootstrap intervals over speakers, for words over pairs. SPEECH may also
be a token folder of ``spintok encode``. WORK keeps the tokens, so a second run continues.

recipes/spoken_lm.md has results for 7.5 hours of read English.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from spintok.corpus.tokens import Options, encode_corpus
from spintok.data.manifest import scan
from spintok.evaluate.bootstrap import MIN_SPEAKERS, Grouped, Ratios, interval, replicates
from spintok.export.packed.dataset import export_packed
from spintok.export.packed.indexed import IndexedDataset
from spintok.export.packed.reader import Windows, read_packed
from spintok.export.sequences.base import speech_only
from spintok.export.vocabulary import Vocabulary
from spintok.loading import load
from spintok.tokens import Tokens

SHUFFLES = (0.02, 0.1, 0.5)
"""Lengths, in seconds, of the pieces that are put in a random order."""


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    tokens = encode(arguments)
    split = {"split_by": arguments.split, "validation": arguments.held_out, "skip_empty": True}
    export_packed([tokens], arguments.work / "windows", window=arguments.window, shuffle=arguments.seed, **split)
    export_packed([tokens], arguments.work / "documents", **split)
    vocabulary = Vocabulary.load(arguments.work / "windows")
    train, held_out, groups = documents(arguments.work / "documents")
    seconds = sum(t.seconds for t in held_out)
    print(f"{len(train)} utterances to learn from, {len(held_out)} held out ({seconds / 60:.1f} minutes)")

    model = fit(arguments, Windows(arguments.work / "windows/train"), vocabulary)
    counts = sum(t.units.size for t in held_out)
    bits = {
        "unigram": list(map(Unigram(train).bits, held_out)),
        "bigram": best_bigram(train, held_out),
        "language model": score(model, held_out, vocabulary, arguments.window),
    }
    report: dict[str, Any] = {"held_out_seconds": seconds, "held_out_tokens": counts}
    rates = with_intervals(groups, {name: (found, [t.seconds for t in held_out]) for name, found in bits.items()})
    print(f"\n{'held out':16} {'perplexity':>20} {'bits a second':>25}")
    for name, found in bits.items():
        report[name] = {"perplexity": 2 ** (sum(found) / counts), "bits_per_second": rates[name]}
        print(f"{name:16} {report[name]['perplexity']:20.2f} {shown(rates[name]):>25}")

    rng = np.random.default_rng(arguments.seed)
    print(f"\n{'pieces of':16} {'real above shuffled, %':>25} {'pairs':>10}")
    for piece in SHUFFLES:
        # Too short an utterance has too few pieces to shuffle.
        chosen = [i for i, t in enumerate(held_out) if t.seconds >= 4 * piece]
        pairs = [(held_out[i], shuffled(held_out[i], piece, rng)) for i in chosen]
        real, other = (
            np.array(score(model, part, vocabulary, arguments.window, mean=True)) for part in zip(*pairs, strict=True)
        )
        ones = np.ones(len(pairs))
        parts = {"accuracy": (100.0 * (real < other), ones), "bits_per_token": (other - real, ones)}
        report[f"pairs_{piece}"] = found = with_intervals([groups[i] for i in chosen], parts)
        margin = f"by {shown(found['bits_per_token'], 2)} bits a token"
        print(f"{piece:.2f} s{'':10} {shown(found['accuracy']):>25} {len(pairs):10} {margin}")
    if arguments.pairs is not None:
        report["words"] = words(arguments, model, vocabulary)
    (arguments.work / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="a folder of audio, a manifest, or a token folder")
    parser.add_argument("work", type=Path, help="folder for the results of all steps")
    parser.add_argument("--tokenizer", default=None, help="a name (spintok list) or a folder")
    parser.add_argument(
        "--split", choices=["speaker", "file"], default="file", help="hold out whole speakers, or files"
    )
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the speakers or files to hold out")
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    parser.add_argument("--batch", type=int, default=8, help="windows in a batch")
    parser.add_argument("--window", type=int, default=256, help="tokens in a window")
    parser.add_argument("--width", type=int, default=128, help="width of the model")
    parser.add_argument("--layers", type=int, default=3, help="layers of the model")
    parser.add_argument("--rate", type=float, default=3e-3, help="maximum learning rate")
    parser.add_argument("--pairs", type=Path, help="folder of recipes/word_pairs.py; needs --tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="seeds weights, batches and shuffling")
    return parser.parse_args()


def encode(arguments: argparse.Namespace) -> Path:
    """Encode the speech, unless it is a token folder, and return its token folder."""
    if (arguments.speech / "tokenizer.json").is_file():
        return arguments.speech
    folder = arguments.work / "tokens"
    summary = encode_corpus(load(arguments.tokenizer), scan(arguments.speech), folder, Options())
    print(summary.audit)
    return folder


def documents(folder: Path) -> tuple[list[Tokens], list[Tokens], list[str]]:
    """The tokens of the training utterances, those of the held-out ones, and the speakers of these, or their keys."""
    _, found = read_packed(folder)
    records = list(found)
    tokens = [next(iter(record.tokens.values())) for record in records]
    # read_packed returns the training part first.
    count = len(IndexedDataset(folder / "train"))
    return tokens[:count], tokens[count:], [record.speaker or record.key for record in records[count:]]


def with_intervals(
    groups: Sequence[str], parts: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> dict[str, dict[str, float]]:
    """Ratios of sums, and 95 % intervals over groups if there are enough of them."""
    estimator = Grouped(Ratios(tuple(map(str, range(len(groups)))), parts), groups)
    found = {name: {"value": value} for name, value in estimator.values().items()}
    if len(estimator.units) >= MIN_SPEAKERS:
        for name, draws in replicates(estimator, 1000).items():
            found[name]["low"], found[name]["high"] = interval(draws, found[name]["value"])
    return found


def shown(figure: Mapping[str, float], digits: int = 1) -> str:
    """A value and its interval."""
    ends = f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]" if "low" in figure else ""
    return f"{figure['value']:.{digits}f}{ends}"


def words(arguments: argparse.Namespace, model: LlamaForCausalLM, vocabulary: Vocabulary) -> dict[str, Any]:
    """How often the model gives a word more probability than its non-word: per token, and in total."""
    tokenizer = load(arguments.tokenizer)
    lines = (arguments.pairs / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tokens = tokenizer.encode([arguments.pairs / row["path"] for row in rows])
    names = [(row["pair"], row["speaker"], row["kind"]) for row in rows]
    total = score(model, tokens, vocabulary, arguments.window)
    mean = [bits / one.units.size for bits, one in zip(total, tokens, strict=True)]
    groups = [str(pair) for pair, _, kind in names if kind == "real"]
    report: dict[str, Any] = {"pairs": len(set(groups))}
    print(f"\n{report['pairs']} pairs of words and non-words in {len(groups) // report['pairs']} voices")
    for normalisation, scores in (("per token", mean), ("in total", total)):
        bits = dict(zip(names, scores, strict=True))
        # A tie, as of two recordings with the same tokens, is half a win.
        values = np.array(
            [
                50.0 * (1 + np.sign(bits[pair, voice, "false"] - real))
                for (pair, voice, kind), real in bits.items()
                if kind == "real"
            ]
        )
        found = with_intervals(groups, {"": (values, np.ones(len(values)))})[""]
        ties = float(np.mean(values == 50))
        report[normalisation.replace(" ", "_")] = {"accuracy": found, "ties": ties}
        print(f"words above non-words {normalisation}: {shown(found)} %, {ties:.1%} ties")
    return report


def fit(arguments: argparse.Namespace, windows: Windows, vocabulary: Vocabulary) -> LlamaForCausalLM:
    """Train from scratch with AdamW: a linear warm-up over a tenth of the steps, then a cosine decay to zero."""
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=arguments.width,
        intermediate_size=3 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4,
        max_position_embeddings=arguments.window,
        tie_word_embeddings=True,
        bos_token_id=vocabulary.special("begin_speech"),
        eos_token_id=vocabulary.special("end_speech"),
    )
    model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(windows)} windows of {arguments.window}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, weight_decay=0.1, betas=(0.9, 0.95))
    warm = max(1, arguments.steps // 10)

    def rate(step: int) -> float:
        left = (step - warm) / max(1, arguments.steps - warm)
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * left))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    rng = np.random.default_rng(arguments.seed)
    started, losses = time.monotonic(), []
    for step in range(arguments.steps):
        chosen = [windows[int(i)] for i in rng.integers(len(windows), size=arguments.batch)]
        batch = {name: torch.from_numpy(np.stack([item[name] for item in chosen])) for name in chosen[0]}
        # Without a cache, transformers keeps attention within documents, whose position_ids start at 0.
        loss = model(**batch, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % max(1, arguments.steps // 10) == 0:
            recent = np.mean(losses[-max(1, arguments.steps // 10) :]) / math.log(2)
            print(f"step {step + 1}: {recent:.3f} bits a token, {time.monotonic() - started:.0f} s", flush=True)
    return model.eval()


@torch.inference_mode()
def score(
    model: LlamaForCausalLM, utterances: Sequence[Tokens], vocabulary: Vocabulary, window: int, *, mean: bool = False
) -> list[float]:
    """The cross-entropy, in bits, of the units of each utterance, without the end token; with ``mean`` per unit.

    An utterance that is longer than a window is scored in parts, each with the last token of the previous one as
    context.
    """
    parts: list[tuple[int, Tensor]] = []
    for number, tokens in enumerate(utterances):
        ids = torch.from_numpy(speech_only(tokens, vocabulary).ids[:-1].astype(np.int64))
        parts += [(number, ids[first : first + window]) for first in range(0, len(ids) - 1, window - 1)]
    bits = [0.0] * len(utterances)
    # Sort by length, so that batches have little padding.
    parts.sort(key=lambda part: len(part[1]))
    for first in range(0, len(parts), 32):
        group = parts[first : first + 32]
        ids = torch.nn.utils.rnn.pad_sequence([part for _, part in group], batch_first=True, padding_value=-1)
        logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=-1, reduction="none")
        for (number, _), total in zip(group, loss.sum(dim=1).tolist(), strict=True):
            bits[number] += total / math.log(2)
    return [b / t.units.size for b, t in zip(bits, utterances, strict=True)] if mean else bits


class Unigram:
    """Relative frequencies of the units, with add-one smoothing."""

    def __init__(self, utterances: Sequence[Tokens]) -> None:
        size = utterances[0].codebook_size
        counts = 1.0 + np.bincount(np.concatenate([t.units for t in utterances]), minlength=size)
        self.share: NDArray[np.float64] = counts / counts.sum()

    def bits(self, tokens: Tokens) -> float:
        return float(-np.log2(self.share[tokens.units]).sum())


class Bigram:
    """Frequencies of units after the previous unit, with Dirichlet smoothing: ``weight`` unigram counts are added."""

    def __init__(self, utterances: Sequence[Tokens], weight: float) -> None:
        size = utterances[0].codebook_size
        # Row K is the start of an utterance.
        counts = np.zeros((size + 1, size))
        for tokens in utterances:
            np.add.at(counts, (_before(tokens), tokens.units), 1)
        counts += weight * Unigram(utterances).share
        self.share: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)

    def bits(self, tokens: Tokens) -> float:
        return float(-np.log2(self.share[_before(tokens), tokens.units]).sum())


def best_bigram(train: Sequence[Tokens], held_out: Sequence[Tokens]) -> list[float]:
    """The bits of a bigram model, with that of several smoothings that gives the fewest, a choice in its favour."""
    return min((list(map(Bigram(train, weight).bits, held_out)) for weight in (1, 3, 10, 30, 100)), key=sum)


def _before(tokens: Tokens) -> NDArray[np.int32]:
    return np.concatenate([[tokens.codebook_size], tokens.units[:-1]]).astype(np.int32)


def shuffled(tokens: Tokens, piece: float, rng: np.random.Generator) -> Tokens:
    """The same frames, with pieces of ``piece`` seconds in a random order."""
    length = max(1, round(piece * tokens.frame_rate))
    pieces = np.split(tokens.codes, range(length, tokens.num_frames, length))
    return Tokens(np.concatenate([pieces[i] for i in rng.permutation(len(pieces))]), tokens.codebook_size)


if __name__ == "__main__":
    main()
