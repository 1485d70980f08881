"""Pairs of a word and a non-word that differ in one phone, spoken by a synthesizer: does a spoken LM know the words?

    python recipes/word_pairs.py LEXICON TEXTS PAIRS --pairs 400
    python recipes/spoken_lm.py SPEECH WORK --tokenizer NAME --pairs PAIRS

The question is that of sWUGGY (Nguyen et al. 2020, "The Zero Resource Speech Benchmark 2021"), whose recordings are not
needed here. LEXICON has lines WORD, tab, ARPAbet; TEXTS is a manifest with the texts of the training speech, so that
words are those that a model can have heard. A non-word is the word with one consonant or vowel replaced, such that
every three phones in a row occur in the lexicon, the whole is neither there nor in the dictionary of 130,000 words that
comes with pocketsphinx, and its phones are as probable as those of the word by a trigram model, as far as there is a
choice. A synthesizer speaks both from their phones, with the same stress and voice, in the sentence "he said that ...
to me again": encoders that look at whole recordings compute other codes for a word that stands alone. The voices of
flite (--voices flite:slt) were made from recordings of people; those of espeak-ng are synthesized by rules. What a
4-gram model of the phones of TEXTS prefers is printed: so much can be known of the words from so much speech by
perfect tokens.
PAIRS gets pairs.jsonl and a FLAC file for each word, non-word and voice.
"""

import argparse
import json
import math
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from spintok.data.labels.transcripts import Transcripts
from spintok.evaluate.ngram import NgramModel
from spintok.evaluate.resynthesis.packages import load
from spintok.evaluate.resynthesis.recognizer import words_of

ESPEAK = {
    "AA": "A:", "AE": "a", "AH": "V", "AO": "O:", "AW": "aU", "AY": "aI", "B": "b", "CH": "tS", "D": "d", "DH": "D",
    "EH": "E", "ER": "3:", "EY": "eI", "F": "f", "G": "g", "HH": "h", "IH": "I", "IY": "i:", "JH": "dZ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "N", "OW": "oU", "OY": "OI", "P": "p", "R": "r", "S": "s", "SH": "S",
    "T": "t", "TH": "T", "UH": "U", "UW": "u:", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "Z",
}  # fmt: skip
"""The mnemonics of espeak-ng's English voices, by ARPAbet phone; an unstressed AH is its schwa, @."""

BEFORE, AFTER = "HH IY1 S EH1 D DH AE1 T", "T AH0 M IY1 AH0 G EH1 N"
"""The sentence around the word."""

VOWELS = frozenset(phone for phone in ESPEAK if phone[0] in "AEIOU")
EDGE = "#"

Phones = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A word, and the phones, with stress, of it and of its non-word."""

    word: str
    real: Phones
    false: Phones


def main() -> None:
    arguments = parse()
    lexicon = read_lexicon(arguments.lexicon)
    heard = Counter(word for text in Transcripts(arguments.texts).values() for word in words_of(text))
    pairs = make_pairs(lexicon, english(), heard, arguments.pairs, arguments.least, arguments.seed)
    if not pairs:
        raise SystemExit("no pairs: the texts have no words of the lexicon often enough (--least)")
    print(f"{len(pairs)} pairs, such as", *(f"{p.word} {' '.join(p.real)} / {' '.join(p.false)};" for p in pairs[:3]))
    share = preferred([spoken(text, lexicon) for text in Transcripts(arguments.texts).values()], pairs)
    print(f"a 4-gram model of the phones of the texts prefers {share:.1%} of the words to their non-words")
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, pair in enumerate(pairs):
        for voice in arguments.voices:
            for kind, phones in (("real", pair.real), ("false", pair.false)):
                key = f"{number:04d}-{voice.replace(':', '-')}-{kind}"
                speak(phones, voice, arguments.output / f"{key}.flac")
                rows.append({"id": key, "path": f"{key}.flac", "pair": number, "kind": kind, "speaker": voice,
                             "word": pair.word, "phones": " ".join(phones)})  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (arguments.output / "pairs.jsonl").write_text(lines, encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lexicon", type=Path, help="lines WORD, tab, ARPAbet phones with stress")
    parser.add_argument("texts", type=Path, help="a manifest with the texts of the training speech")
    parser.add_argument("output", type=Path, help="folder for the recordings")
    parser.add_argument("--pairs", type=int, default=400, help="number of pairs")
    parser.add_argument("--least", type=int, default=3, help="how often the training texts must have the word")
    parser.add_argument(
        "--voices",
        nargs="+",
        default=["en-us+f2", "en-us+m3", "en-gb+f4", "en-gb+m7"],
        help="voices of espeak-ng, or flite:slt, flite:rms and flite:awb",
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds the choice of words and replacements")
    return parser.parse_args()


def read_lexicon(path: Path) -> dict[str, list[Phones]]:
    """Pronunciations by word in lower case."""
    found: dict[str, list[Phones]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, phones = line.partition("\t")
        found.setdefault(word.lower(), []).append(stressed(tuple(phones.split())))
    return found


def english() -> set[Phones]:
    """All pronunciations of the dictionary of pocketsphinx."""
    pocketsphinx = load("pocketsphinx", "a dictionary of English")
    lines = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines()
    return {tuple(line.split()[1:]) for line in lines}


def stressed(phones: Phones) -> Phones:
    """The phones with a stress on the first vowel if there is none, as in words of one syllable."""
    if any(phone[-1] in "12" for phone in phones):
        return phones
    first = next((place for place, phone in enumerate(phones) if phone[-1] == "0"), len(phones))
    return tuple(f"{phone[:-1]}1" if place == first else phone for place, phone in enumerate(phones))


def make_pairs(
    lexicon: Mapping[str, Sequence[Phones]],
    words: Collection[Phones],
    heard: Mapping[str, int],
    number: int,
    least: int,
    seed: int,
) -> list[Pair]:
    """At most ``number`` pairs of words of 4 to 9 phones that ``heard`` counts ``least`` times, in a random order.

    ``words``: pronunciations without stress that are no non-words, beside those of the lexicon.
    """
    known = {bare(phones) for pronunciations in lexicon.values() for phones in pronunciations}
    counts = Counter(gram for phones in known for size in (2, 3) for gram in grams(phones, size))
    candidates = [word for word in sorted(lexicon) if heard.get(word, 0) >= least and 4 <= len(lexicon[word][0]) <= 9]
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    taken = {*known, *words}
    for word in rng.permutation(candidates).tolist():
        real = lexicon[word][0]
        choices = [false for false in replacements(real) if bare(false) not in taken and possible(bare(false), counts)]
        if choices:
            aim = surprise(bare(real), counts)
            # Of the three nearest any, so that not every word gets the commonest replacement.
            nearest = sorted(choices, key=lambda false: (abs(surprise(bare(false), counts) - aim), false))[:3]
            chosen = nearest[int(rng.integers(len(nearest)))]
            taken.add(bare(chosen))
            pairs.append(Pair(word, real, chosen))
        if len(pairs) == number:
            break
    return pairs


def bare(phones: Phones) -> Phones:
    """The phones without stress."""
    return tuple(phone.rstrip("012") for phone in phones)


def replacements(phones: Phones) -> Iterator[Phones]:
    """The phones with one of them replaced by another of its kind; a vowel keeps its stress."""
    for place, phone in enumerate(phones):
        name = phone.rstrip("012")
        for other in ESPEAK:
            if other != name and (other in VOWELS) == (name in VOWELS):
                yield (*phones[:place], other + phone[len(name) :], *phones[place + 1 :])


def grams(phones: Phones, size: int) -> list[Phones]:
    """All ``size`` phones in a row, with the edges of the word."""
    whole = (EDGE, *phones, EDGE)
    return [whole[i : i + size] for i in range(len(whole) - size + 1)]


def possible(phones: Phones, counts: Mapping[Phones, int]) -> bool:
    """Whether some word has each of the trigrams."""
    return all(counts.get(gram, 0) for gram in grams(phones, 3))


def surprise(phones: Phones, counts: Mapping[Phones, int]) -> float:
    """Minus the log probability of each third phone after the two before it, summed."""
    return sum(math.log(counts[gram[:2]] / counts[gram]) for gram in grams(phones, 3))


def spoken(text: str, lexicon: Mapping[str, Sequence[Phones]]) -> Phones:
    """The phones, without stress, of the words of a text that the lexicon has."""
    return tuple(phone for word in words_of(text) if word in lexicon for phone in bare(lexicon[word][0]))


def preferred(texts: Sequence[Phones], pairs: Sequence[Pair]) -> float:
    """The share of pairs whose word has more probability than the non-word, by a 4-gram model of texts."""
    numbers = {phone: number for number, phone in enumerate(ESPEAK)}
    model = NgramModel([[numbers[phone] for phone in text] for text in texts], 4, len(numbers))

    def bits(phones: Phones) -> float:
        return model.bits([numbers[phone] for phone in bare(in_sentence(phones))])

    return sum(bits(pair.real) < bits(pair.false) for pair in pairs) / len(pairs)


def in_sentence(phones: Phones) -> Phones:
    """The phones of the sentence with the word."""
    return (*BEFORE.split(), *phones, *AFTER.split())


def mnemonics(phones: Phones) -> str:
    """The phones as espeak-ng reads them between double brackets."""
    parts = []
    for phone in phones:
        name, stress = phone.rstrip("012"), phone[-1]
        sound = "@" if phone == "AH0" else ESPEAK[name]
        parts.append({"1": "'", "2": ","}.get(stress, "") + sound)
    return "".join(parts)


def speak(phones: Phones, voice: str, path: Path) -> None:
    """Write the sentence with these phones as 16 kHz FLAC."""
    engine, _, name = voice.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "word.wav"
        if engine == "flite":
            # These voices know no stress.
            sounds = " ".join(["pau", *bare(in_sentence(phones)), "pau"]).lower()
            command = ["flite", "-voice", name, "-p", sounds, "-o", str(wav)]
        else:
            words = f"[[{mnemonics(tuple(BEFORE.split()))} {mnemonics(phones)} {mnemonics(tuple(AFTER.split()))}]]"
            command = ["espeak-ng", "-v", voice, "-s", "140", "-w", str(wav), words]
        subprocess.run(command, check=True)
        samples, rate = soundfile.read(wav)
    # The voices of flite differ in level.
    peak = np.abs(samples).max() if engine == "flite" else 1.0
    soundfile.write(path, 0.7 / peak * soxr.resample(samples, rate, 16_000), 16_000, subtype="PCM_16")


if __name__ == "__main__":
    main()
