import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.manifest import scan
from spintok.frames import SAMPLE_RATE
from spintok.train.batching.plan import BatchPlan, Position, samples_from_headers
from spintok.train.recipe_sections import DataConfig

SECONDS = np.random.default_rng(0).uniform(0.2, 20, 500)
SAMPLES = (SECONDS * SAMPLE_RATE).astype(np.int64)


def plan(rank=0, world_size=1, **data) -> BatchPlan:
    return BatchPlan.of(SAMPLES, DataConfig(**{"seconds": 60.0, "workers": 0, **data}), 7, rank, world_size)


def test_an_epoch_has_every_utterance_once_in_batches_of_like_size() -> None:
    made = plan()
    batches = made.epoch(0)
    members = [row for batch in batches for row in batch]
    assert sorted(members) == np.flatnonzero(SAMPLES >= 8000).tolist()
    seconds = np.array([made.samples[list(batch)].sum() / SAMPLE_RATE for batch in batches])
    assert seconds.max() <= 60 + 17
    assert seconds.min() >= 40
    assert np.mean(seconds) > 57


def test_padding_is_small_and_order_is_random() -> None:
    made = plan()
    batches = made.epoch(0)
    padded = sum(made.samples[list(batch)].max() * len(batch) for batch in batches)
    assert padded < 1.2 * sum(made.samples[list(batch)].sum() for batch in batches)
    longest = [made.samples[list(batch)].max() for batch in batches]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    again = plan().epoch(0)
    assert again == batches
    other = made.epoch(1)
    shared = {frozenset(batch) for batch in batches} & {frozenset(batch) for batch in other}
    assert len(shared) < 0.1 * len(batches)


def test_a_plan_goes_on_from_any_place() -> None:
    made = plan()
    iterator = made.specs_from(Position())
    first = [next(iterator) for _ in range(len(made.epoch(0)) + 3)]
    assert first[-1].position == Position(1, 2)
    resumed = made.specs_from(Position(0, 5))
    assert [next(resumed) for _ in range(len(first) - 5)] == first[5:]
    # One past the last batch of an epoch is the first of the next.
    assert next(made.specs_from(Position(0, len(made.epoch(0))))).position == Position(1, 0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5))
def test_ranks_share_each_batch_evenly(ranks) -> None:
    alone = plan(world_size=ranks)
    shares = [plan(rank, ranks).specs_from(Position()) for rank in range(ranks)]
    for batch in alone.epoch(0):
        parts = [next(share).rows for share in shares]
        assert sorted(row for part in parts for row in part) == sorted(batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) >= 1


def test_long_utterances_are_counted_as_crops() -> None:
    assert plan(max_seconds=2.0).samples.max() == 2 * SAMPLE_RATE
    # A batch smaller than an utterance holds that one.
    assert all(len(batch) == 1 for batch in plan(seconds=10.0, max_seconds=10.0, min_seconds=9.0).epoch(0))


def test_speech_that_is_too_short_or_too_little_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no utterance to train on is as long as data.min_seconds, 30"):
        plan(min_seconds=30.0, max_seconds=30.0)
    with pytest.raises(ValueError, match="cannot be divided among 501 processes"):
        plan(world_size=501)


def test_lengths_are_read_from_headers(speech, tmp_path) -> None:
    utterances = scan(speech)
    assert samples_from_headers(utterances)[-1] == 14080
    (tmp_path / "no.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"no\.wav: libsndfile cannot read it"):
        samples_from_headers(scan(tmp_path))
