import json

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from spintok.data.manifest import scan
from spintok.frames import frame_center_seconds
from spintok.loading import load
from spintok.train.validation import Validation

PHONES = [["Y", 0, 0.2], ["EH", 0.2, 0.5], ["S", 0.5, 0.9]]


def test_a_check_of_a_tokenizer(speech, tmp_path) -> None:
    alignments = tmp_path / "phones.jsonl"
    alignments.write_text(json.dumps({"id": "fred_yes", "phones": PHONES}) + "\n")
    tokenizer = load("mfcc-kmeans-100")
    figures = Validation(scan(speech), 100, alignments)(tokenizer)
    assert figures.keys() == {"perplexity", "ued_pooled_speaker", "pnmi"}
    assert 10 < figures["ued_pooled_speaker"] < 120

    codes = np.concatenate([tokenizer.encode(utterance.path).codes for utterance in scan(speech)])
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    assert figures["perplexity"] == pytest.approx(np.prod(shares**-shares))
    fred = tokenizer.encode(speech / "fred_yes.flac").codes
    times = [frame_center_seconds(frame) for frame in range(len(fred))]
    phones = [next(label for label, start, end in PHONES if start <= time < end) for time in times]
    assert figures["pnmi"] == pytest.approx(mutual_info_score(phones, fred) / mutual_info_score(phones, phones))


def test_few_utterances_and_no_alignments(speech) -> None:
    check = Validation(scan(speech), 2)
    tokenizer = load("mfcc-kmeans-100")
    figures = check(tokenizer)
    assert figures == check(tokenizer)
    assert "pnmi" not in figures


def test_alignments_that_do_not_fit(speech, tmp_path) -> None:
    (tmp_path / "other.jsonl").write_text('{"id": "other", "phones": [["A", 0, 1]]}\n')
    with pytest.raises(ValueError, match="no utterance has an alignment"):
        Validation(scan(speech), 100, tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="no such file"):
        Validation(scan(speech), 100, tmp_path / "none.jsonl")
