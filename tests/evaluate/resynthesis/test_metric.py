"""The whole family, with decoders whose sound is known: the recording itself, changed or not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from judged import needs_judges, one_window, sample
from torch import Tensor
from voices import mfcc_tokenizer, voices

from spintok.data.audio import read
from spintok.data.labels.alignments import PHONE_CLASSES
from spintok.data.manifest import Utterance
from spintok.evaluate.metric import MetricInputs
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.resynthesis import packages
from spintok.evaluate.resynthesis.metric import METRIC, resynthesize
from spintok.evaluate.resynthesis.recognizer import words_of
from spintok.evaluate.robustness import METRIC as ROBUSTNESS
from spintok.evaluate.run import _digest, evaluate
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

NAMES = ("eve_bus", "fred_yes")
TEXTS = {"eve_bus": "Nine people waited in the rain for the last bus."}


class Parrot:
    """A decoder that knows the recording of every token sequence, and plays what ``change`` makes of it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        spoken: list[Utterance],
        change: Callable[[np.ndarray], np.ndarray] = lambda sound: sound,
    ) -> None:
        self.fingerprint = f"parrot {change(np.arange(4.0)).tolist()}"
        self.calls = 0
        self._change = change
        self._known = {tokenizer.encode(one.path).codes.tobytes(): one.path for one in spoken}

    def decode(self, tokens: Tokens) -> Tensor:
        self.calls += 1
        sound = self._change(read(self._known[tokens.codes.tobytes()]).numpy())
        return torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Two recordings of so many samples that DNSMOS has one window of each, where those of tests/speech have ten."""
    folder = tmp_path_factory.mktemp("spoken")
    paths = {"eve_bus": folder / "eve_bus.flac", "fred_yes": one_window(folder)}
    soundfile.write(paths["eve_bus"], sample("eve_bus")[:36_800], SAMPLE_RATE)
    return [replace(one, path=paths[one.key]) for one in voices() if one.key in NAMES]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return mfcc_tokenizer(20)


@needs_judges
def test_a_perfect_decoder(tokenizer: Tokenizer, spoken: list[Utterance]) -> None:
    target = [one for one in spoken if one.key == "eve_bus"]
    found = resynthesize(tokenizer, Parrot(tokenizer, spoken), spoken, texts=TEXTS, target=target)
    values = found.values()
    assert found.units == NAMES
    for name in ("wer", "cer", "phone_errors", "dnsmos", "dnsmos_signal", "dnsmos_background"):
        assert values[name] == values[f"{name}_of_recording"] > 0, name
    assert found.phones["tokens"] == found.phones["recording"]
    for name in ("wer_against_recording", "cer_against_recording", "f0_rmse", "f0_contour_rmse", "voicing_error"):
        assert values[name] == 0, name
    assert values["speaker_to_source"] == pytest.approx(1, abs=1e-5)
    assert values["speaker_to_others"] < 0.95
    assert values["speaker_to_target"] == values["recording_to_target"] < 1
    assert found.heard["fred_yes"] == {"recording": "yes", "tokens": "yes"}


@needs_judges
def test_a_bad_decoder_and_error_rates_against_jiwer(tokenizer: Tokenizer, spoken: list[Utterance]) -> None:
    import jiwer

    found = resynthesize(tokenizer, Parrot(tokenizer, spoken, lambda sound: sound[::-1]), spoken, texts=TEXTS)
    values = found.values()
    heard = [found.heard[key]["tokens"] for key in TEXTS]
    texts = [" ".join(words_of(text)) for text in TEXTS.values()]
    # The recording without a text counts only where no text is needed.
    assert values["wer"] == pytest.approx(100 * jiwer.wer(texts, heard))
    assert values["cer"] == pytest.approx(100 * jiwer.cer(texts, heard))
    recordings, spoken = ([one[end] for one in found.heard.values()] for end in ("recording", "tokens"))
    assert values["wer_against_recording"] == pytest.approx(100 * jiwer.wer(recordings, spoken))
    assert values["cer_against_recording"] == pytest.approx(100 * jiwer.cer(recordings, spoken))
    assert values["wer"] > 50 > values["wer_of_recording"]
    # Of one text, so the phones of all are those of one alignment.
    phones = found.phones["tokens"]
    assert values["phone_errors"] == pytest.approx(100 * phones.edits / phones.counts()[1])
    assert phones.table()["N"]["count"] == 4
    wrong, total = phones.counts(PHONE_CLASSES["vowels"])
    assert values["phone_errors_vowels"] == pytest.approx(100 * wrong / total)
    assert values["phone_errors_vowels"] > values["phone_errors_vowels_of_recording"]
    assert values["voicing_error"] > 10
    assert values["f0_rmse"] > 100
    # Backwards it is still the same voice.
    assert values["speaker_to_source"] > values["speaker_to_others"]
    assert "speaker_to_target" not in values


@needs_judges
def test_in_an_evaluation(tokenizer: Tokenizer, spoken: list[Utterance], tmp_path: Path) -> None:
    one_voice = tuple(Utterance(one.key, one.path, "anyone") for one in spoken)
    dataset = Dataset(one_voice, {}, NoiseSources(), TEXTS)
    options = EvaluationOptions(draws=20, resynthesis_utterances=2)
    parrot = Parrot(tokenizer, spoken)
    for _ in range(2):
        # The second run reads what the first one kept.
        report = evaluate(
            [tokenizer], dataset, options, ["resynthesis"], decoders={tokenizer.name: parrot}, output=tmp_path
        )
    assert parrot.calls == 2
    found = report["tokenizers"][0]["metrics"]["resynthesis"]
    assert found["drawn"] == "2 utterances of one speaker"
    assert found["figures"]["dnsmos"]["low"] < found["figures"]["dnsmos"]["high"]
    assert "speaker_to_others" not in found["figures"]
    assert found["details"]["phones"]["tokens"]["R"]["count"] == 2
    assert found["figures"]["phone_errors"]["high"] > found["figures"]["phone_errors_approximants"]["value"] >= 0
    assert "## resynthesis (2 utterances of one speaker)" in (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == report


def test_results_depend_on_the_decoder_the_texts_and_the_target(tokenizer: Tokenizer, spoken: list[Utterance]) -> None:
    dataset = Dataset(tuple(spoken), {}, NoiseSources(), TEXTS)
    inputs = MetricInputs(tokenizer, dataset, EvaluationOptions(), decoder=Parrot(tokenizer, spoken))
    changed = [
        inputs,
        replace(inputs, decoder=Parrot(tokenizer, spoken, lambda sound: -sound)),
        replace(inputs, dataset=replace(dataset, target=tuple(spoken[:1]))),
        replace(inputs, dataset=replace(dataset, texts={**TEXTS, "fred_yes": "Yes."})),
    ]
    assert len({_digest(METRIC, one) for one in changed}) == 4
    # Other metrics do not depend on the decoder.
    assert _digest(ROBUSTNESS, changed[0]) == _digest(ROBUSTNESS, changed[1])


def test_without_a_decoder(tokenizer: Tokenizer, spoken: list[Utterance]) -> None:
    dataset = Dataset(tuple(spoken), {}, NoiseSources())
    with pytest.raises(ValueError, match="no decoder of its codebook 'primary'; name one with --decoder"):
        evaluate([tokenizer], dataset, EvaluationOptions(), ["resynthesis"])


def test_missing_packages_are_named_in_one_line(
    tokenizer: Tokenizer, spoken: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = packages.importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util, "find_spec", lambda name: None if name in ("speechmos", "resemblyzer") else there(name)
    )
    monkeypatch.setattr(packages, "PACKAGES", {"speechmos": "speechmos", "resemblyzer": "Resemblyzer", "json": "json"})
    dataset = Dataset(tuple(spoken), {}, NoiseSources())
    decoders = {tokenizer.name: Parrot(tokenizer, spoken)}
    expected = r"speechmos, Resemblyzer are not installed: pip install 'spintok\[resynthesis\]'$"
    with pytest.raises(ValueError, match=expected):
        evaluate([tokenizer], dataset, EvaluationOptions(), ["resynthesis"], decoders=decoders)
