"""Pronunciations learned from a small lexicon with regular spelling."""

import itertools
import random

from spintok.data.labels.spelling import Spelling

ONSETS = {"b": "B", "p": "P", "sh": "SH", "s": "S", "ch": "CH", "th": "TH", "t": "T", "qu": "K W"}
VOWELS = {"a": "AE", "ee": "IY", "i": "IH", "oo": "UW"}
CODAS = {"ck": "K", "x": "K S", "m": "M", "": "", "sh": "SH"}


def lexicon() -> dict[str, tuple[str, ...]]:
    return {
        "".join(spelt): tuple(" ".join(parts[name] for parts, name in zip(KINDS, spelt, strict=True)).split())
        for spelt in itertools.product(*KINDS)
    }


KINDS = (ONSETS, VOWELS, CODAS)


def test_words_that_were_left_out_are_pronounced_by_rule() -> None:
    words = lexicon()
    order = random.Random(0).sample(sorted(words), len(words))
    wrong: list[str] = []
    for start in range(5):
        left_out = order[start::5]
        spelling = Spelling({word: phonemes for word, phonemes in words.items() if word not in left_out})
        wrong += [word for word in left_out if spelling.pronounce(word) != words[word]]
    # Two letters of one sound, such as "sh", may be aligned in two ways, which a few words mix.
    assert len(wrong) <= 0.1 * len(words), wrong


def test_the_order_of_the_lexicon_does_not_matter() -> None:
    words = lexicon()
    one, other = Spelling(words), Spelling(dict(reversed(words.items())))
    for word in ("shabquee", "x", "thooxick"):
        assert one.pronounce(word) == other.pronounce(word)


def test_letters_and_words_that_teach_nothing() -> None:
    # Three phonemes for a letter are an abbreviation, and empty pronunciations are left out.
    spelling = Spelling({"w": ("D", "AH", "B", "AH", "L"), "a": ("AE",), "b": ()})
    assert spelling.pronounce("aza") == ("AE", "AE")
    assert Spelling({}).pronounce("a") == ()
