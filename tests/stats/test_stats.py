"""TokenCounts: closed-form cases, parts that add up, and scipy and scikit-learn as judges."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spintok.cli.app import app
from spintok.corpus.token_formats import Record, shard_path, write_shard
from spintok.stats import (
    JointCounts,
    TokenCounts,
    dependence,
    drift,
    entropy,
    jensen_shannon,
    metrics,
    read_counts,
    to_json,
    zipf_slope,
)
from spintok.stats.counts import SECONDS
from spintok.tokens import Tokens

SIZE = 6
SPEECH = st.lists(
    st.tuples(st.lists(st.integers(0, SIZE - 1), max_size=40), st.sampled_from(["anna", "beth", None])), max_size=6
)


def collected(speech: list[tuple[list[int], str | None]]) -> TokenCounts:
    return TokenCounts.collect(((Tokens(codes, SIZE), speaker) for codes, speaker in speech), SIZE)


def of(codes: list[int], size: int = SIZE) -> TokenCounts:
    return TokenCounts.of(Tokens(codes, size))


@given(SPEECH, SPEECH)
@settings(max_examples=50, deadline=None)
def test_parts_add_up_to_the_whole_and_survive_json(first: list, second: list) -> None:
    whole = collected(first + second)
    assert collected(first) + collected(second) == whole
    assert sum((collected([one]) for one in first + second), TokenCounts.empty(SIZE)) == whole
    assert TokenCounts.from_dict(json.loads(to_json(whole))["counts"]) == whole


@given(SPEECH)
@settings(max_examples=50, deadline=None)
def test_counts_are_those_of_plain_loops(speech: list) -> None:
    units = [[c for i, c in enumerate(codes) if i == 0 or codes[i - 1] != c] for codes, _ in speech]
    found = collected(speech)
    assert found.tokens.tolist() == [sum(u.count(code) for u in units) for code in range(SIZE)]
    assert found.frames.tolist() == [sum(codes.count(code) for codes, _ in speech) for code in range(SIZE)]
    pairs = [pair for u in units for pair in pairwise(u)]
    assert dict(zip(found.bigrams.keys.tolist(), found.bigrams.counts.tolist(), strict=True)) == {
        a * SIZE + b: pairs.count((a, b)) for a, b in set(pairs)
    }
    assert found.over_time[1].sum() == found.tokens.sum()
    assert {name: counts[0] for name, counts in found.speakers.items()} == {
        name: sum(s == name for _, s in speech) for name in {s for _, s in speech} - {None}
    }


def test_even_usage() -> None:
    figures = metrics(of([0, 1, 2, 3] * 25, 4))
    assert figures["entropy"] == pytest.approx(2.0)
    assert figures["perplexity"] == pytest.approx(4.0)
    assert figures["imbalance"] == pytest.approx(0.0)
    assert figures["gini"] == pytest.approx(0.0)
    assert figures["tail_share"] == pytest.approx(0.2)
    assert figures["zipf_slope"] == pytest.approx(0.0)
    # The next code is certain, and each token lasts a frame.
    assert figures["conditional_entropy"] == pytest.approx(0.0, abs=1e-12)
    assert figures["token_rate"] == 50.0
    assert figures["frame_bitrate"] == figures["token_bitrate"] == pytest.approx(100.0)
    assert figures["run_length_shares"] == {"1": 1.0}
    assert figures["dead_codewords"] == 0


def test_a_single_code() -> None:
    figures = metrics(of([3] * 100), silence=[3])
    assert figures["entropy"] == figures["conditional_entropy"] == figures["zipf_slope"] == 0.0
    assert figures["imbalance"] == 1.0
    assert figures["gini"] == pytest.approx(1 - 1 / SIZE)
    assert (figures["active_codewords"], figures["dead_codeword_ids"]) == (1, [0, 1, 2, 4, 5])
    assert figures["run_length_max"] == figures["run_length_median"] == 100
    assert figures["token_rate"] == pytest.approx(0.5)
    assert figures["silence_share"] == 1.0
    assert figures["token_rate_over_time"] == [1.0, 0.0]
    only = metrics(of([0, 0], 1))
    assert (only["frame_bitrate"], only["imbalance"], only["gini"]) == (0.0, 0.0, 0.0)


def test_nothing_at_all() -> None:
    figures = metrics(TokenCounts.empty(4), silence=[0])
    assert figures["tokens"] == figures["entropy"] == figures["token_rate"] == figures["silence_share"] == 0
    assert figures["dead_codewords"] == 4
    assert figures["token_rate_over_time"] == []
    assert of([]).utterances == 1


def test_zipf_law_has_slope_minus_one() -> None:
    # 27720 is divisible by 1 ... 12, so the counts follow the law exactly.
    assert zipf_slope([27720 // rank for rank in range(1, 13)]) == pytest.approx(-1.0)
    assert zipf_slope([0, 5]) == 0.0


def test_alternating_codes_are_certain_and_random_ones_are_not() -> None:
    alternating = metrics(of([0, 0, 1, 1] * 50, 2))
    assert alternating["entropy"] == pytest.approx(1.0)
    assert alternating["conditional_entropy"] == pytest.approx(0.0, abs=1e-12)
    assert alternating["run_length_mean"] == 2.0
    assert alternating["token_bitrate"] == alternating["entropy_bitrate"] == 25.0
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 4, 40_000)
    # Never the same code twice in a row, and the three others equally likely: log2 3 bits.
    random = metrics(of(np.cumsum(steps) % 4, 4))
    assert random["conditional_entropy"] == pytest.approx(math.log2(3), abs=2e-3)
    assert random["conditional_entropy_bitrate"] == pytest.approx(50 * random["conditional_entropy"])


def test_rates_over_time_and_by_speaker() -> None:
    slow, fast = [0] * 50 + [1] * 50, list(range(5)) * 10
    found = metrics(TokenCounts.collect([(Tokens(slow, SIZE), "slow"), (Tokens(fast, SIZE), "fast")], SIZE))
    assert found["token_rate_by_speaker"] == {"fast": 50.0, "slow": 1.0}
    assert found["token_rate_over_time"] == [25.5, 1.0]
    long = of([0, 1] * (SECONDS * 25 + 75)).over_time
    assert long[0, -1] == 50 * 4


def test_many_codewords_stay_sparse() -> None:
    size = 100_000
    found = of([7, 99_999, 7, 12_345], size)
    assert found.bigrams.keys.size == 3
    assert metrics(found)["conditional_entropy"] == pytest.approx(2 / 3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_pairs_against_scikit_learn_and_scipy(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import entropy as scipy_entropy
    from sklearn.metrics import mutual_info_score

    row, column = zip(*pairs, strict=True)
    found = JointCounts.of(row, column, 5, 8)
    information = mutual_info_score(row, column) / math.log(2)
    assert found.mutual_information() == pytest.approx(information, abs=1e-9)
    assert entropy(found.row_counts) == pytest.approx(scipy_entropy(found.row_counts, base=2), abs=1e-12)
    by_row = [np.bincount([c for r, c in pairs if r == wanted], minlength=8) for wanted in range(5)]
    expected = sum(b.sum() / len(pairs) * scipy_entropy(b, base=2) for b in by_row if b.sum())
    assert found.conditional_entropy() == pytest.approx(expected, abs=1e-9)


def test_two_codebooks() -> None:
    primary = np.arange(1000) % 4
    same = dependence(JointCounts.of(primary, primary * 2 + 1, 4, 8))
    assert same == pytest.approx({"mutual_information": 2.0, "primary_known": 1.0, "auxiliary_known": 1.0})
    finer = dependence(JointCounts.of(primary // 2, primary, 2, 4))
    assert finer == pytest.approx({"mutual_information": 1.0, "primary_known": 1.0, "auxiliary_known": 0.5})
    assert dependence(JointCounts.empty(4, 8))["primary_known"] == 0.0


def test_drift_against_scipy() -> None:
    from scipy.spatial.distance import jensenshannon

    first, second = [5, 0, 3, 2], [1, 7, 1, 1]
    assert jensen_shannon(first, second) == pytest.approx(jensenshannon(first, second, base=2) ** 2)
    here, there = of([0, 1, 0, 1]), of([2, 3, 2, 3, 3, 3])
    assert drift(here, there) == {"token_drift": 1.0, "bigram_drift": 1.0, "token_rate_change": pytest.approx(-50 / 3)}
    assert drift(here, here) == {"token_drift": 0.0, "bigram_drift": 0.0, "token_rate_change": 0.0}
    with pytest.raises(ValueError, match="one side has none"):
        drift(here, TokenCounts.empty(SIZE))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be added"):
        of([0]) + of([0], 9)
    with pytest.raises(ValueError, match="cannot be compared"):
        drift(of([0]), of([0], 9))
    with pytest.raises(ValueError, match="among those"):
        TokenCounts.collect([(Tokens([0], 3), None)], SIZE)
    with pytest.raises(ValueError, match=r"must lie in \[0, 6\)"):
        metrics(of([0]), silence=[6])
    with pytest.raises(ValueError, match="a column must lie in"):
        JointCounts.of([0], [5], 1, 5)
    damaged = tmp_path / "stats.json"
    damaged.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="not the JSON that spintok stats writes"):
        read_counts(damaged)


def corpus(folder: Path, speech: dict[str, list[int]], fingerprint: str = "f") -> Path:
    """A folder of tokens of two codebooks, the second of which knows the first."""
    folder.mkdir()
    records = [
        Record(key, f"{key}.wav", {"primary": Tokens(codes, 4), "fine": Tokens([2 * c for c in codes], 8)}, "anna")
        for key, codes in speech.items()
    ]
    write_shard(shard_path(folder, 0, "jsonl"), records, "jsonl", dedup=True)
    description = {
        "spintok_tokens": 1,
        "codebooks": {"primary": 4, "fine": 8},
        "format": "jsonl",
        "fingerprint": fingerprint,
        "shard_size": 1000,
        "utterances": len(speech),
    }
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["stats", *map(str, arguments)], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_command_counts_two_codebooks_and_drift(tmp_path: Path) -> None:
    here = corpus(tmp_path / "here", {"a": [0, 0, 1], "b": [1, 2]})
    there = corpus(tmp_path / "there", {"a": [3, 3, 3]})
    shown = run(here, "--against", there, "--silence", "0", "--json", tmp_path / "out.json")
    for words in ("token drift", "1.0000", "two codebooks", "bigram entropy", "dead codewords", "rate by speaker"):
        assert words in shown
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["drift"]["token_drift"] == 1.0
    assert found["figures"]["silence_share"] == pytest.approx(0.4)
    assert found["codebooks"]["primary_known"] == pytest.approx(1.0)
    assert read_counts(tmp_path / "out.json").tokens.tolist() == [1, 2, 1, 0]
    both = json.loads(run(here, there, "--codebook", "fine", "--json", "-"))
    assert both["figures"]["codebook_size"] == 8
    assert both["figures"]["frames"] == 8


def test_the_command_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    here = corpus(tmp_path / "here", {"a": [0]})
    other = corpus(tmp_path / "other", {"a": [0]}, "another")
    with pytest.raises(ValueError, match="another tokenizer"):
        run(here, "--against", other)
    with pytest.raises(ValueError, match="cannot be added"):
        run(here, other)
    with pytest.raises(ValueError, match="--silence takes codes"):
        run(here, "--silence", "x")
    with pytest.raises(ValueError, match="has no codebook 'none'"):
        run(here, "--codebook", "none")
