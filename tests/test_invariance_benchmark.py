"""The benchmark of invariance runs, and reports a code that changes."""

import pytest
import torch
from small_models import TINY, tiny_encoder

from benchmarks import invariance
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.tokenizer import Tokenizer


@pytest.mark.parametrize("changing", [False, True])
def test_counts_the_codes_that_change(monkeypatch, capsys, changing: bool) -> None:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig("primary", 9, TINY.width, 4, "dot", projection=True))
    tokenizer = Tokenizer(tiny_encoder(), [book])
    monkeypatch.setattr(invariance, "make_tokenizer", lambda layer, device: tokenizer)
    if changing:
        encode = invariance.encode

        def other(tokenizer, recordings, seconds):
            return [[code + (seconds == 30) for code in codes] for codes in encode(tokenizer, recordings, seconds)]

        monkeypatch.setattr(invariance, "encode", other)
    code = invariance.main(["--frames", "60", "--rounds", "1", "--device", "cpu", "--batch-seconds", "30", "200"])
    rows = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines()[3:]]
    assert code == changing
    assert len(rows) == 2
    assert all((int(row) > 0) == changing for row in rows)
