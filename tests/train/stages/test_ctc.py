import itertools
import math
from pathlib import Path

import pytest
import torch
from small_models import tiny_encoder

from spintok.data.audio import read
from spintok.data.labels.ctc_targets import CtcTargets, read_lexicon
from spintok.data.labels.transcripts import TranscriptError
from spintok.data.manifest import Utterance, scan
from spintok.train.batching.examples import Batch
from spintok.train.batching.plan import Position
from spintok.train.distributed import Distributed
from spintok.train.stages.ctc import CtcModel, symbol_prior
from spintok.train.trainable import TrainableEncoder

UTTERANCES = [Utterance(key, Path(f"{key}.wav")) for key in ("a", "b", "c")]


def test_characters() -> None:
    found = CtcTargets.of(UTTERANCES, {"a": "It's  ON!", "b": "no 12"})
    assert found.symbols == ("<blank>", "'", "i", "n", "o", "s", "t", "|")
    spelt = ["".join(found.symbols[i] for i in target) for target in found.targets if target]
    assert spelt == ["it's|on", "no"]
    assert found.targets[2] is None


def test_phonemes_and_words_that_the_lexicon_lacks(tmp_path) -> None:
    (tmp_path / "lexicon.txt").write_text("NO N OW1\nNO N AH0\nYES Y EH1 S\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt")
    assert lexicon == {"no": ("N", "OW"), "yes": ("Y", "EH", "S")}
    found = CtcTargets.of(UTTERANCES, {"a": "no yes", "b": "no way"}, lexicon)
    assert found.symbols == ("<blank>", "EH", "N", "OW", "S", "Y")
    assert found.targets == ((2, 3, 5, 1, 4), None, None)
    assert found.unknown_words == ("way",)
    with pytest.raises(TranscriptError, match=r"none of the 3 utterances .* has no such words as 'way'"):
        CtcTargets.of(UTTERANCES, {"b": "way"}, lexicon)


def test_unknown_words_can_be_guessed() -> None:
    lexicon = {"no": ("N", "OW"), "yes": ("Y", "EH", "S")}
    found = CtcTargets.of(UTTERANCES, {"a": "no way", "b": "yes"}, lexicon, lambda word: ("W", "EY"))
    assert found.symbols == ("<blank>", "EH", "EY", "N", "OW", "S", "W", "Y")
    assert found.targets == ((3, 4, 6, 2), (7, 1, 5), None)
    assert found.unknown_words == ("way",)


def test_lexicons_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "l").write_text("WORD\n")
    with pytest.raises(TranscriptError, match=r"l:1: expected 'WORD PHONEME"):
        read_lexicon(tmp_path / "l")
    (tmp_path / "l").write_text("")
    with pytest.raises(TranscriptError, match="is empty"):
        read_lexicon(tmp_path / "l")


def test_the_loss_sums_over_all_ways_to_say_the_transcript() -> None:
    """Against the definition: every path of symbols and blanks that reduces to the target, one by one."""
    torch.manual_seed(0)
    model = CtcModel(TrainableEncoder(tiny_encoder()), 4, 3, 0.5, Distributed(torch.device("cpu")))
    model.normalize_codewords()
    # 4 and 3 frames.
    lengths = torch.tensor([400 + 3 * 320, 400 + 2 * 320])
    waveforms = 0.1 * torch.randn(2, 1360)
    targets = [(1, 2), (3, 3)]
    loss, figures = model(Batch(Position(), 0.1, waveforms, lengths, labels=torch.tensor(targets)))
    total = 0.0
    blanks = 0
    features, counts = model.encoder(waveforms, lengths)
    for row, target in enumerate(targets):
        frames = int(counts[row])
        z = model.primary.embed(features[row, :frames])
        p = (z @ model.primary.normalized_codewords().T / 0.5).softmax(1)
        blanks += int((p.argmax(1) == 0).sum())
        likelihood = 0.0
        for path in itertools.product(range(4), repeat=frames):
            said = [symbol for symbol, _ in itertools.groupby(path) if symbol]
            if tuple(said) == target:
                likelihood += math.prod(float(p[t, symbol].detach()) for t, symbol in enumerate(path))
        total -= math.log(likelihood)
    assert float(loss.detach()) == pytest.approx(total / 4, rel=1e-4)
    assert float(figures["blank"]) == pytest.approx(blanks / 7)


def test_the_prior_is_that_of_the_transcripts_and_is_added_to_the_logits() -> None:
    targets = CtcTargets(("<blank>", "a", "b", "c"), ((1, 1, 2), None, (1, 2, 2, 2)))
    prior = symbol_prior(targets, 0.4)
    # Counts 3, 4 and 0, plus one each, of ten.
    torch.testing.assert_close(prior, torch.tensor([0.4, 0.6 * 0.4, 0.6 * 0.5, 0.6 * 0.1]))
    torch.manual_seed(0)
    model = CtcModel(TrainableEncoder(tiny_encoder()), 4, 3, 0.5, Distributed(torch.device("cpu")), prior)
    # Features that say nothing leave the prior: each of 4 frames is a blank with .4, the symbol with .24.
    torch.nn.init.zeros_(model.primary.projection.weight)
    torch.nn.init.zeros_(model.primary.projection.bias)
    lengths = torch.tensor([400 + 3 * 320])
    batch = Batch(Position(), 0.1, 0.1 * torch.randn(1, 1360), lengths, labels=torch.tensor([[1]]))
    loss, statistics = model(batch)
    likelihood = sum((5 - run) * 0.24**run * 0.4 ** (4 - run) for run in range(1, 5))
    assert float(loss.detach()) == pytest.approx(-math.log(likelihood), rel=1e-4)
    assert float(statistics["blank"]) == 1.0
    assert "log_prior" not in model.state_dict()


def test_the_symbol_error_rate(speech) -> None:
    """Against jiwer, on symbols that the model recognizes without having learned anything."""
    jiwer = pytest.importorskip("jiwer")
    torch.manual_seed(1)
    model = CtcModel(TrainableEncoder(tiny_encoder()), 5, 8, 0.5, Distributed(torch.device("cpu")))
    model.train()
    utterances = scan(speech)
    symbols = ("<blank>", "a", "b", "c", "d")
    # The references have other numbers than the model's symbols, and one that it does not know.
    names = ("<blank>", "z", "d", "c", "b", "a")
    targets = tuple(tuple(1 + (i * row) % 5 for i in range(1, 20 + row)) for row in range(len(utterances) - 1))
    found = model.error_rate(utterances, CtcTargets(names, (*targets, None)), symbols)
    recognized, expected = [], []
    for utterance, target in zip(utterances, targets, strict=False):
        waveform = read(utterance.path)
        model.eval()
        features, _ = model.encoder(waveform[None], torch.tensor([len(waveform)]))
        best = (model.primary.embed(features[0]) @ model.primary.normalized_codewords().T).argmax(1).tolist()
        recognized.append(" ".join(symbols[symbol] for symbol, _ in itertools.groupby(best) if symbol))
        expected.append(" ".join(names[symbol] for symbol in target))
    assert any(recognized)
    assert found == pytest.approx(jiwer.wer(expected, recognized))
