"""Resynthesis: what a decoder makes of the tokens, against the recording and its text.

Word and character error rates, DNSMOS, errors of F0 and voicing, and speaker similarity, as DC-Spin (Chang et al. 2024)
and Expresso (Nguyen et al. 2023) judge units by the speech that they give. Every figure depends on the decoder as much
as on the tokens: compare tokenizers only through decoders of one recipe.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.data.audio import AudioError, read
from spintok.data.labels.alignments import PHONE_CLASSES
from spintok.data.manifest import Utterance
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Decoder, Metric, MetricInputs, Result, bootstrapped, bootstrapped_utterances
from spintok.evaluate.resynthesis.judges import Heard, load_judges
from spintok.evaluate.resynthesis.packages import missing_packages
from spintok.evaluate.resynthesis.phone_errors import PhoneErrors
from spintok.evaluate.resynthesis.pitch import pitch_errors
from spintok.evaluate.resynthesis.recognizer import words_of
from spintok.evaluate.robustness import edit_distance
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["METRIC", "Resynthesis", "resynthesize"]

Voice = NDArray[np.float32]

TARGET_RECORDINGS = 20
"""At most so many recordings of the target voice make up its embedding."""

_ROOTS = ("f0_rmse", "f0_contour_rmse")


@dataclass(frozen=True, eq=False)
class Resynthesis:
    """The estimator of all figures, and what was heard.

    Attributes:
        ratios: sums over utterances; those of ``f0_rmse`` and ``f0_contour_rmse`` are of squares.
        heard: the words heard in each recording, and in what its tokens say, by utterance.
        phones: errors of all utterances against the text, in what the tokens say ("tokens") and in the recordings
            ("recording"); empty without texts.
    """

    ratios: Ratios
    heard: Mapping[str, Mapping[str, str]]
    phones: Mapping[str, PhoneErrors]

    @property
    def units(self) -> tuple[str, ...]:
        """The utterances."""
        return self.ratios.units

    def values(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Each figure with each utterance counted ``weights`` times.

        ``wer``, ``cer``: errors against the text, per cent; ``..._of_recording``: those of the recording itself, which
        resynthesis can hardly undercut; ``..._against_recording``: errors against the words heard in the recording,
        which need no text. ``phone_errors``: edits over the phones of the text, per cent; ``phone_errors_vowels`` and
        those of other classes (``PHONE_CLASSES``): its phones that are replaced or missing; and those
        ``..._of_recording``. ``dnsmos``, ``dnsmos_signal``, ``dnsmos_background``: means over utterances, from 1 to 5,
        and those ``..._of_recording``. ``f0_rmse``: in cents, over frames voiced in both; ``f0_contour_rmse``: the same
        without the register of either voice. ``voicing_error``: frames with another voicing decision, per cent.
        ``speaker_to_source``: cosine of the embeddings of resynthesis and recording; ``speaker_to_others``: of the
        resynthesis and recordings of other speakers, so the value at chance; ``speaker_to_target`` and
        ``recording_to_target``: of either and the target voice.
        """
        found = self.ratios.values(weights)
        return {name: value**0.5 if name in _ROOTS else value for name, value in found.items()}


def resynthesize(
    tokenizer: Tokenizer,
    decoder: Decoder,
    utterances: Sequence[Utterance],
    *,
    texts: Mapping[str, str] | None = None,
    target: Sequence[Utterance] = (),
    codebook: str | None = None,
    skipped: MutableMapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Resynthesis:
    """Encode utterances, decode their tokens, and judge the sound.

    Args:
        tokenizer: the tokenizer.
        decoder: speaks tokens of ``codebook``.
        utterances: the speech; those too short to have a token are left out.
        texts: texts by utterance key, for ``wer`` and ``cer``; utterances without one are left out of these.
        target: recordings of the voice that the decoder speaks with, for ``speaker_to_target``.
        codebook: the codebook to use; the primary one by default.
        skipped: gets the keys of utterances whose audio cannot be read, with the reasons.
        progress: reports the progress.

    Raises:
        ValueError: no utterance could be read.
        MissingPackageError: a judge is not installed.
        AudioError: a recording of the target voice cannot be read.
    """
    centre = _centroid(target)
    keys: list[str] = []
    speakers: list[str] = []
    pairs: list[tuple[Heard, Heard]] = []
    for done, utterance in enumerate(utterances, start=1):
        try:
            tokens = tokenizer.encode(utterance.path, codebook=codebook)
            recording = _hear(utterance.path) if tokens.num_frames else None
        except AudioError as error:
            if skipped is not None:
                skipped[utterance.key] = str(error)
            continue
        if recording is not None:
            spoken = decoder.decode(tokens).detach().cpu().numpy()
            pairs.append((recording, load_judges().hear(spoken)))
            keys.append(utterance.key)
            speakers.append(utterance.speaker or utterance.key)
        progress(f"resynthesis through {tokenizer.name}", done, len(utterances))
    if not keys:
        raise ValueError("no utterance could be read")
    known = texts or {}
    written = [None if (text := known.get(key)) is None else words_of(text) for key in keys]
    phones = _phone_errors(pairs, written)
    parts = _word_parts(pairs, written) | _phone_parts(phones)
    parts |= _sound_parts(pairs) | _speaker_parts(pairs, speakers, centre)
    heard = {
        key: {"recording": " ".join(one.words), "tokens": " ".join(other.words)}
        for key, (one, other) in zip(keys, pairs, strict=True)
    }
    summed = {sound: PhoneErrors.summed(part for part in found if part is not None) for sound, found in phones.items()}
    return Resynthesis(Ratios(tuple(keys), parts), heard, summed)


@lru_cache(maxsize=4096)
def _hear(path: Path) -> Heard:
    """The judges on a recording, once for all tokenizers of a run."""
    return load_judges().hear(read(path).numpy())


Parts = dict[str, tuple[ArrayLike, ArrayLike]]


def _word_parts(pairs: Sequence[tuple[Heard, Heard]], written: Sequence[list[str] | None]) -> Parts:
    """Error rates over words and characters, in per cent: all edits over all units of the reference."""
    compared: dict[str, list[tuple[list[str] | None, list[str]]]] = {
        "": [(text, tokens.words) for text, (_, tokens) in zip(written, pairs, strict=True)],
        "_of_recording": [(text, one.words) for text, (one, _) in zip(written, pairs, strict=True)],
        "_against_recording": [(one.words, tokens.words) for one, tokens in pairs],
    }
    parts: Parts = {}
    for suffix, found in compared.items():
        if all(reference is None for reference, _ in found):
            continue
        for name, separator in (("wer", None), ("cer", " ")):
            counts = [_edits(reference, other, separator) for reference, other in found]
            edits, lengths = np.array(counts, dtype=np.float64).T
            parts[f"{name}{suffix}"] = (100 * edits, lengths)
    return parts


def _edits(reference: list[str] | None, other: list[str], separator: str | None) -> tuple[int, int]:
    """Edits and the length of the reference, in words, or in characters with the words joined by ``separator``."""
    if reference is None:
        return 0, 0
    if separator is not None:
        reference, other = list(separator.join(reference)), list(separator.join(other))
    return edit_distance(reference, other), len(reference)


def _phone_errors(
    pairs: Sequence[tuple[Heard, Heard]], written: Sequence[list[str] | None]
) -> dict[str, list[PhoneErrors | None]]:
    """For each utterance the errors of the phones of "tokens" and "recording"; none of what the dictionary lacks."""
    pronunciation = load_judges().pronunciation
    phones = [None if text is None else pronunciation(text) for text in written]
    if all(found is None for found in phones):
        return {}
    heard = {"tokens": [two.words for _, two in pairs], "recording": [one.words for one, _ in pairs]}
    return {
        sound: [
            # What was heard is in the dictionary.
            None if reference is None else PhoneErrors.of(reference, pronunciation(words) or [])
            for reference, words in zip(phones, found, strict=True)
        ]
        for sound, found in heard.items()
    }


def _phone_parts(phones: Mapping[str, Sequence[PhoneErrors | None]]) -> Parts:
    """Error rates over the phones of the text, all and those of each class, in per cent."""
    parts: Parts = {}
    for sound, found in phones.items():
        suffix = {"tokens": "", "recording": "_of_recording"}[sound]
        counts = {"": [(0, 0) if one is None else (one.edits, one.counts()[1]) for one in found]}
        for name, members in PHONE_CLASSES.items():
            counts[f"_{name}"] = [(0, 0) if one is None else one.counts(members) for one in found]
        for name, each in counts.items():
            wrong, total = np.array(each, dtype=np.float64).T
            parts[f"phone_errors{name}{suffix}"] = (100 * wrong, total)
    return parts


def _sound_parts(pairs: Sequence[tuple[Heard, Heard]]) -> Parts:
    ones = np.ones(len(pairs))
    parts: Parts = {}
    for suffix, heard in (("", [two for _, two in pairs]), ("_of_recording", [one for one, _ in pairs])):
        overall, signal, background = np.array([one.quality for one in heard]).T
        parts[f"dnsmos{suffix}"] = (overall, ones)
        parts[f"dnsmos_signal{suffix}"] = (signal, ones)
        parts[f"dnsmos_background{suffix}"] = (background, ones)
    errors = np.array([pitch_errors(one.f0, two.f0) for one, two in pairs], dtype=np.float64)
    frames, decisions, voiced, squares, contour = errors.T
    return parts | {
        "f0_rmse": (squares, voiced),
        "f0_contour_rmse": (contour, voiced),
        "voicing_error": (100 * decisions, frames),
    }


def _speaker_parts(pairs: Sequence[tuple[Heard, Heard]], speakers: Sequence[str], centre: Voice | None) -> Parts:
    """Similarities of speakers; utterances with too little speech count nothing."""
    sources = [one.voice for one, _ in pairs]
    spoken = [two.voice for _, two in pairs]
    parts: Parts = {"speaker_to_source": _means([_cosine(a, b) for a, b in zip(spoken, sources, strict=True)])}
    by_speaker: dict[str, list[Voice]] = {}
    for name, voice in zip(speakers, sources, strict=True):
        if voice is not None:
            by_speaker.setdefault(name, []).append(voice)
    if len(by_speaker) > 1:
        # The mean of inner products is the inner product with the mean.
        means = {name: np.stack(voices).mean(axis=0) for name, voices in by_speaker.items()}
        others: list[Voice] = [
            np.stack([mean for other, mean in means.items() if other != name]).mean(axis=0) for name in speakers
        ]
        parts["speaker_to_others"] = _means([_cosine(a, b) for a, b in zip(spoken, others, strict=True)])
    if centre is not None:
        parts["speaker_to_target"] = _means([_cosine(voice, centre) for voice in spoken])
        parts["recording_to_target"] = _means([_cosine(voice, centre) for voice in sources])
    return parts


def _cosine(first: Voice | None, second: Voice | None) -> float | None:
    """The inner product of two embeddings, whose length is 1."""
    return None if first is None or second is None else float(first @ second)


def _means(values: Sequence[float | None]) -> tuple[ArrayLike, ArrayLike]:
    """Numerators and denominators of a mean over the values that there are."""
    present = np.array([value is not None for value in values], dtype=np.float64)
    return np.array([value or 0.0 for value in values]), present


def _centroid(target: Sequence[Utterance]) -> Voice | None:
    """The mean embedding of recordings of the target voice, scaled to length 1; None if there are none."""
    found = [_hear_voice(utterance.path) for utterance in target]
    voices = [voice for voice in found if voice is not None]
    if not voices:
        return None
    mean: Voice = np.mean(voices, axis=0, dtype=np.float32)
    return mean / np.linalg.norm(mean)


@lru_cache(maxsize=4096)
def _hear_voice(path: Path) -> Voice | None:
    return load_judges().voice(read(path).numpy())


def _missing(inputs: MetricInputs) -> str | None:
    if inputs.decoder is None:
        return f"no decoder of its codebook {inputs.codebook!r}; name one with --decoder"
    return missing_packages()


def _depends(inputs: MetricInputs) -> str:
    fingerprint = None if inputs.decoder is None else inputs.decoder.fingerprint
    return f"{fingerprint} {inputs.dataset.target!r}"


def _measure(inputs: MetricInputs) -> Result:
    assert inputs.decoder is not None
    options, dataset = inputs.options, inputs.dataset
    found = resynthesize(
        inputs.tokenizer,
        inputs.decoder,
        dataset.sample(options.resynthesis_utterances, options.seed),
        texts=dataset.texts,
        target=dataset.target[:TARGET_RECORDINGS],
        codebook=inputs.codebook,
        skipped=inputs.skipped,
        progress=inputs.progress,
    )
    details = {
        "decoder": inputs.decoder.fingerprint,
        "utterances": len(found.units),
        "heard": found.heard,
        "phones": {sound: errors.table() for sound, errors in found.phones.items()},
    }
    if len({dataset.speakers.get(key, key) for key in found.units}) == 1:
        return bootstrapped_utterances(found, options, "utterances of one speaker", details)
    return bootstrapped(found, inputs, details)


METRIC = Metric("resynthesis", _measure, _missing, depends=_depends)
