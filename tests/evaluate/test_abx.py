"""ABX against independent loops, against fastabx where it is installed, and on hand-worked examples."""

import math
from itertools import product

import numpy as np
import pytest

from spintok.data.labels.alignments import Interval
from spintok.evaluate.abx import abx
from spintok.evaluate.abx_triples import TASKS, AbxTask, Sampling, Segment, find_segments, sample_segments
from spintok.evaluate.dtw import Distance, distances, unit_rows
from spintok.frames import frame_center_seconds


def naive_dtw(x: np.ndarray, y: np.ndarray, distance: Distance) -> float:
    """DTW by a recursion with memory: the smallest sum, with ties broken by the documented rule."""

    def apart(i: int, j: int) -> float:
        if distance == "identical":
            return float(x[i] != y[j])
        if distance == "euclidean":
            return math.dist(x[i], y[j])
        return math.acos(min(1.0, max(-1.0, float(np.dot(x[i], y[j]))))) / math.pi

    known: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j in product(range(len(x)), range(len(y))):
        back = [known[at] for at in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if at in known]
        # min takes the first of equals: diagonal, then left, then up.
        total, length = min(back, key=lambda step: step[0]) if back else (0.0, 0)
        known[i, j] = (total + apart(i, j), length + 1)
    total, length = known[len(x) - 1, len(y) - 1]
    return total / length


def naive_abx(sequences: list[np.ndarray], segments: list[Segment], task: AbxTask, distance: Distance) -> float:
    """The error over every triple, one by one."""
    cells: dict[tuple, list[float]] = {}
    numbers = range(len(segments))
    memory = {(i, j): naive_dtw(sequences[i], sequences[j], distance) for i in numbers for j in numbers}
    for a, b, x in product(numbers, numbers, numbers):
        A, B, X = segments[a], segments[b], segments[x]
        if a == x or not A.context == B.context == X.context:
            continue
        if task == "speaker":
            fits = A.phone == B.phone == X.phone and A.speaker == X.speaker != B.speaker
            cell = (A.speaker, B.speaker, A.phone, A.context)
        else:
            fits = A.phone == X.phone != B.phone and A.speaker == B.speaker
            fits = fits and (X.speaker == A.speaker) == (task == "phone_within")
            cell = (A.phone, B.phone, A.speaker, A.context, X.speaker)
        if fits:
            # Within a group the earlier segment comes first, as in fastabx: DTW's rule for ties has sides.
            to_a = memory[min(x, a), max(x, a)] if A.speaker == X.speaker else memory[x, a]
            to_b = memory[x, b]
            cells.setdefault(cell, []).append(0.5 if math.isclose(to_a, to_b, abs_tol=1e-6) else float(to_a > to_b))
    means: dict[tuple, list[float]] = {cell: [float(np.mean(errors))] for cell, errors in cells.items()}
    for depth in (3, 2, 0):
        shorter: dict[tuple, list[float]] = {}
        for cell, values in means.items():
            shorter.setdefault(cell[:depth], []).append(float(np.mean(values)))
        means = shorter
    return 100 * float(np.mean(means[()]))


def corpus(seed: int = 0, kind: str = "features") -> tuple[list[np.ndarray], list[Segment]]:
    """Items of three phones, two contexts and three speakers, whose vectors know their phone and their speaker."""
    rng = np.random.default_rng(seed)
    sequences, segments = [], []
    for phone, context, speaker in product("abc", (("x", "y"), ("y", "x")), ("s", "t", "u")):
        for number in range(int(rng.integers(0, 4))):
            length = int(rng.integers(1, 6))
            if kind == "codes":
                sequence = rng.integers(0, 3, length) + "abc".index(phone)
            else:
                center = np.eye(5)["abc".index(phone)] + 0.5 * np.eye(5)["stu".index(speaker) + 2]
                sequence = unit_rows(center + 0.7 * rng.standard_normal((length, 5)))
            sequences.append(sequence)
            segments.append(Segment(f"{number}", 0, length, phone, context, speaker))
    return sequences, segments


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_against_loops(task: AbxTask, seed: int) -> None:
    sequences, segments = corpus(seed)
    for distance in ("angular", "euclidean"):
        found = abx(sequences, segments, task, distance).values()["error"]
        assert found == pytest.approx(naive_abx(sequences, segments, task, distance), abs=1e-6)
        assert 0 < found < 50


@pytest.mark.parametrize("task", TASKS)
def test_codes_against_loops(task: AbxTask) -> None:
    sequences, segments = corpus(3, "codes")
    found = abx(sequences, segments, task, "identical")
    assert found.values()["error"] == pytest.approx(naive_abx(sequences, segments, task, "identical"), abs=1e-6)
    first, second = np.indices((len(segments), len(segments))).reshape(2, -1)
    apart = distances(sequences, first, second, "identical")
    expected = [naive_dtw(sequences[i], sequences[j], "identical") for i, j in zip(first, second, strict=True)]
    assert np.allclose(apart, expected, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["features", "codes"])
def test_against_fastabx(task: AbxTask, kind: str) -> None:
    pytest.importorskip("fastabx")
    import polars as pl
    import torch
    from fastabx import AbxTask as FastTask
    from fastabx import Dataset, InMemoryAccessor, Score

    sequences, segments = corpus(4, kind)
    ends = np.cumsum([len(sequence) for sequence in sequences]).tolist()
    data = torch.from_numpy(np.concatenate(sequences)).float().reshape(ends[-1], -1)
    spans = dict(enumerate(zip([0, *ends[:-1]], ends, strict=True)))
    labels = pl.DataFrame(
        {
            "phone": [segment.phone for segment in segments],
            "context": ["-".join(segment.context) for segment in segments],
            "speaker": [segment.speaker for segment in segments],
        }
    )
    dataset = Dataset(labels, InMemoryAccessor(spans, data, torch.device("cpu")))
    on, by, across, levels = {
        "phone_within": ("phone", ["context", "speaker"], None, ["context", "speaker"]),
        "phone_across": ("phone", ["context"], ["speaker"], ["context", "speaker"]),
        "speaker": ("speaker", ["context", "phone"], None, ["context", "phone"]),
    }[task]
    distance: Distance = "identical" if kind == "codes" else "angular"
    expected = Score(FastTask(dataset, on=on, by=by, across=across), distance).collapse(levels=levels)
    assert abx(sequences, segments, task, distance).values()["error"] == pytest.approx(100 * expected, abs=1e-3)


def test_a_triple_by_hand() -> None:
    context = ("x", "y")
    segments = [Segment("u", 0, 2, phone, context, "s") for phone in "aab"]
    codes = [np.array([1, 1]), np.array([1, 2]), np.array([3, 2])]
    # X = second a: 1/2 from the first a, 1/2 from b: half an error. X = first a: 1/2 and 1: none. b has no X.
    assert abx(codes, segments, "phone_within", "identical").values() == {"error": 25.0}
    assert abx(codes, segments, "phone_within", "identical").triples == 2
    # One code for all: nothing can be told apart.
    assert abx([np.array([0])] * 3, segments, "phone_within", "identical").values() == {"error": 50.0}


def test_weights_are_repeated_speakers() -> None:
    sequences, segments = corpus(1)
    score = abx(sequences, segments, "phone_within", "angular")
    assert score.units == ("s", "t", "u")
    only = [i for i, segment in enumerate(segments) if segment.speaker == "t"]
    alone = abx([sequences[i] for i in only], [segments[i] for i in only], "phone_within", "angular")
    assert score.values(np.array([0.0, 2.0, 0.0])) == pytest.approx(alone.values())
    speakers = abx(sequences, segments, "speaker", "angular")
    two = [i for i, segment in enumerate(segments) if segment.speaker != "s"]
    both = abx([sequences[i] for i in two], [segments[i] for i in two], "speaker", "angular")
    assert speakers.values(np.array([0.0, 1.0, 1.0])) == pytest.approx(both.values())
    assert speakers.values(np.zeros(3)) == {"error": 0.0}


def test_items_of_an_alignment() -> None:
    labels = ["SIL", "a", "b", "c", "d", "SIL"]
    phones = {"u": [Interval(label, 0.1 * i, 0.1 * (i + 1)) for i, label in enumerate(labels)], "v": []}
    found = find_segments(phones, {"u": 25, "v": 9}, {"u": "anna", "v": "anna"})
    assert [(segment.phone, segment.context) for segment in found] == [("b", ("a", "c")), ("c", ("b", "d"))]
    centers = [frame_center_seconds(frame) for frame in range(25)]
    assert list(range(found[0].start, found[0].stop)) == [i for i, c in enumerate(centers) if 0.1 <= c < 0.4]
    # The second one goes on past the last frame.
    assert found[1].stop == 25
    phonemes = find_segments(phones, {"u": 25}, {"u": "anna"}, "phoneme")
    assert [(segment.phone, segment.stop - segment.start) for segment in phonemes] == [
        ("a", 5),
        ("b", 5),
        ("c", 5),
        ("d", 5),
    ]
    assert find_segments(phones, {"u": 25}, {}) == []


def test_sampling_bounds_groups_and_repeats() -> None:
    segments = [
        Segment(f"{n}", 0, 1, phone, ("x", "y"), speaker) for n in range(30) for phone in "ab" for speaker in "stuvwxy"
    ]
    kept = sample_segments(segments, Sampling(group=4, seed=1))
    assert len(kept) == 4 * 2 * 7
    assert (
        kept
        == sample_segments(segments, Sampling(group=4, seed=1))
        != sample_segments(segments, Sampling(group=4, seed=2))
    )
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 9, 1) for _ in kept]
    every, some = (abx(codes, kept, "phone_across", "identical", Sampling(across=n)) for n in (6, 2))
    assert (every.triples, some.triples) == (7 * 2 * 6 * 4**3, 7 * 2 * 2 * 4**3)


def test_wrong_input_is_refused() -> None:
    segments = [Segment("u", 0, 1, "a", ("x", "y"), "s")]
    with pytest.raises(ValueError, match="no ABX triples for speaker"):
        abx([np.array([1])], segments, "speaker", "identical")
    with pytest.raises(ValueError, match="0 sequences for 1 segments"):
        abx([], segments, "speaker", "identical")
    with pytest.raises(ValueError, match="'angular' does not fit sequences of codes"):
        distances([np.array([1])], np.array([0]), np.array([0]), "angular")
    with pytest.raises(ValueError, match="at least 1 segment"):
        Sampling(group=0)
