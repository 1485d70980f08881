"""A token folder with two codebooks, its phones and its evaluation, and a tokenizer with two codebooks."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_decoders import untrained_decoder

import spintok
from spintok.corpus.tokens import Options, encode_corpus
from spintok.data.manifest import Utterance, scan
from spintok.decoder import Decoder
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.perturbations import Condition
from spintok.evaluate.run import evaluate
from spintok.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def two_codebooks() -> Tokenizer:
    """`mfcc-kmeans-100` with an auxiliary codebook of 300 codewords around its 100."""
    default = spintok.load("mfcc-kmeans-100")
    primary = default.codebooks["primary"]
    auxiliary = type(primary)(dataclasses.replace(primary.config, name="auxiliary", size=300))
    noise = torch.randn(300, primary.config.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        auxiliary.codewords.copy_(primary.codewords.repeat(3, 1) + 0.3 * noise)
    return Tokenizer(default.encoder, [primary, auxiliary], name="two")


@pytest.fixture(scope="session")
def token_folder(tmp_path_factory, speech, two_codebooks) -> Path:
    folder = tmp_path_factory.mktemp("report") / "six-voices"
    utterances = [Utterance(u.key, u.path, speaker=u.key.split("_")[0]) for u in scan(speech)]
    encode_corpus(two_codebooks, utterances, folder, Options(codebooks=("primary", "auxiliary"), shard_size=4))
    return folder


@pytest.fixture(scope="session")
def phones(tmp_path_factory, speech) -> Path:
    """Phones of all utterances but one: a cycle of labels, 70 ms each, from 0.1 s on."""
    path = tmp_path_factory.mktemp("phones") / "phones.jsonl"
    labels = ["AA", "T", "SIL", "<b>"]
    rows = []
    for number, utterance in enumerate(scan(speech)[1:]):
        times = [0.1 + 0.07 * i for i in range(21)]
        intervals = [[labels[(i + number) % 4], times[i], times[i + 1]] for i in range(20)]
        rows.append(json.dumps({"id": utterance.key, "phones": intervals}))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory, speech, two_codebooks) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    utterances = tuple(scan(speech))
    conditions = (Condition("gain", -12.0), Condition("white", 20.0), Condition("white", 0.0))
    settings = EvaluationOptions(conditions=conditions, draws=20)
    evaluate(
        [two_codebooks], Dataset(utterances, {}, NoiseSources(utterances)), settings, ["robustness"], output=folder
    )
    return folder / "evaluation.json"


@pytest.fixture(scope="session")
def decoders(two_codebooks) -> list[Decoder]:
    """A decoder of either codebook."""
    return [untrained_decoder(two_codebooks, name) for name in two_codebooks.codebook_names]
