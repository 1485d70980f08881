import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from spintok.frames import frame_center_seconds
from spintok.manifest import scan
from spintok.tokenizer import load
from spintok.tokens import Tokens
from spintok.train.check import Check, edit_distance, phone_information, read_phones


def slow_distance(a, b) -> int:
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            )
    return table[-1][-1]


@given(*[st.lists(st.integers(0, 3), max_size=12)] * 2)
def test_edit_distance(a, b) -> None:
    assert edit_distance(np.array(a, dtype=int), np.array(b, dtype=int)) == slow_distance(a, b)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 4)), min_size=2, max_size=60))
def test_phone_information_is_that_of_scikit_learn(pairs) -> None:
    phones, codes = zip(*pairs, strict=True)
    tokens = Tokens(np.array(codes), 5, 400 + 320 * (len(codes) - 1))
    # Each frame's own interval around its centre.
    intervals = [
        (phone, frame_center_seconds(i) - 0.01, frame_center_seconds(i) + 0.01) for i, phone in enumerate(phones)
    ]
    entropy = mutual_info_score(phones, phones)
    expected = mutual_info_score(phones, codes) / entropy if entropy > 0 else 0.0
    assert phone_information([(tokens, intervals)]) == pytest.approx(expected, abs=1e-9)


def test_a_check_of_a_tokenizer(speech, tmp_path) -> None:
    utterances = scan(speech)
    alignments = tmp_path / "phones.jsonl"
    alignments.write_text(json.dumps({"id": "fred_yes", "phones": [["Y", 0, 0.2], ["EH", 0.2, 0.5], ["S", 0.5, 0.8]]}))
    figures = Check(utterances, 100, read_phones(alignments))(load("mfcc-kmeans-100"))
    assert figures.keys() == {"perplexity", "ued", "pnmi"}
    assert 20 < figures["perplexity"] < 100
    assert 10 < figures["ued"] < 120
    assert 0.3 < figures["pnmi"] <= 1
    few = Check(utterances, 2, {})
    assert few(load("mfcc-kmeans-100")) == few(load("mfcc-kmeans-100"))
    assert "pnmi" not in few(load("mfcc-kmeans-100"))


def test_alignments_that_do_not_fit(speech, tmp_path) -> None:
    with pytest.raises(ValueError, match="no utterance of the development set has an alignment"):
        Check(scan(speech), 100, {"other": [("A", 0.0, 1.0)]})
    (tmp_path / "p").write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="p:1: expected"):
        read_phones(tmp_path / "p")
    with pytest.raises(ValueError, match="cannot be read"):
        read_phones(tmp_path / "none")
