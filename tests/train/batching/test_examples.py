import pickle

import numpy as np
import pytest
import torch

from spintok.augment import draw, perturb, utterance_rng
from spintok.data.audio import read
from spintok.data.manifest import scan
from spintok.frames import HOP, num_frames, num_samples
from spintok.loading import load
from spintok.progress import no_progress
from spintok.train.batching.chunks import WithChunks
from spintok.train.batching.examples import Batch, Recordings
from spintok.train.batching.labels import Labels, code_labels
from spintok.train.batching.pauses import pauses
from spintok.train.batching.plan import BatchSpec, Position
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe_sections import MaskConfig, SurroundingsConfig, ViewsConfig
from spintok.train.stages.masked import MaskedExamples
from spintok.train.stages.masking import span_mask

CPU = Distributed(torch.device("cpu"))


@pytest.fixture(scope="module")
def utterances(request):
    return scan(request.getfixturevalue("speech"))


@pytest.fixture(scope="module")
def labels(utterances, tmp_path_factory) -> Labels:
    folder = tmp_path_factory.mktemp("labels")
    return code_labels(load("mfcc-kmeans-100"), utterances, folder, CPU, no_progress)


def test_labels_are_the_codes_of_the_tokenizer(utterances, labels) -> None:
    tokenizer = load("mfcc-kmeans-100")
    for row, utterance in enumerate(utterances):
        assert labels.codes[row].tolist() == tokenizer.encode(utterance.path).codes.tolist()


def test_a_crop_keeps_its_labels(utterances, labels) -> None:
    """The features of a stretch are those of the whole file at the same frames, so its labels must be too."""
    recordings = Recordings(utterances, 16_000)
    for epoch in range(5):
        crop = recordings.crop(0, utterance_rng(0, epoch, "a"))
        whole = read(utterances[0].path)
        first = crop.first_frame * HOP
        assert torch.equal(crop.waveform, whole[first : first + 16_000])
        assert labels.of(0, crop).tolist() == labels.codes[0][crop.first_frame :][: crop.frames].tolist()
        assert crop.frames == 49
    assert len({recordings.crop(0, utterance_rng(0, epoch, "a")).first_frame for epoch in range(20)}) > 5


def test_the_last_frames_of_a_long_file_are_cropped_too(utterances) -> None:
    crops = [Recordings(utterances, 16_000).crop(0, utterance_rng(0, epoch, "a")) for epoch in range(400)]
    spare = (len(read(utterances[0].path)) - 16_000) // HOP
    assert {0, spare} <= {crop.first_frame for crop in crops}


def test_a_file_that_changed_since_it_was_labelled_is_named(utterances, labels) -> None:
    crop = Recordings(utterances, 10**6).crop(0, utterance_rng(0, 0, "a"))
    with pytest.raises(ValueError, match=r"fred_yes.*43 labels for 214 frames"):
        labels.of(5, crop)


def test_the_second_view_is_the_perturbed_first(utterances) -> None:
    examples = ViewExamples(Recordings(utterances, 16_000), ViewsConfig(), seed=3)
    batch = examples(BatchSpec(Position(2, 0), (0, 5)))
    assert batch.inputs.shape == batch.second.shape == (2, 16_000)
    assert batch.lengths.tolist() == [16_000, 14_080]
    assert batch.seconds == pytest.approx(30_080 / 16_000)
    assert not batch.second[1, 14_080:].any()
    rng = utterance_rng(3, 2, utterances[5].key)
    rng.random()
    expected = perturb(batch.inputs[1:, :14_080], batch.lengths[1:], [draw(rng)])
    torch.testing.assert_close(batch.second[1:, :14_080], expected)


def test_draws_belong_to_the_utterance_and_the_epoch(utterances) -> None:
    views = ViewsConfig(noise=1.0, reverb=1.0)
    examples = ViewExamples(Recordings(utterances, 16_000), views, seed=3)
    both = examples(BatchSpec(Position(1, 0), (0, 1)))
    alone = pickle.loads(pickle.dumps(examples))(BatchSpec(Position(1, 9), (1,)))
    torch.testing.assert_close(both.second[1], alone.second[0])
    other = examples(BatchSpec(Position(2, 0), (1,)))
    assert not torch.allclose(alone.second, other.second)


def test_variants_repeat(utterances) -> None:
    examples = ViewExamples(Recordings(utterances, 16_000), ViewsConfig(variants=2), seed=3)
    views = [examples(BatchSpec(Position(epoch, 0), (0, 1))).second for epoch in range(3)]
    assert torch.equal(views[0], views[2])
    assert not torch.allclose(views[0], views[1])


def test_noise_has_its_level_and_comes_from_files(utterances, speech) -> None:
    plain = ViewExamples(Recordings(utterances, 16_000), ViewsConfig(), seed=3)
    for files in (None, str(speech)):
        views = ViewsConfig(noise=1.0, snr_min=5, snr_max=5, noise_files=files)
        noisy = ViewExamples(Recordings(utterances, 16_000), views, seed=3)
        one, two = (examples(BatchSpec(Position(0, 0), (0,))).second for examples in (plain, noisy))
        level = 10 * torch.log10(one.square().sum() / (two - one).square().sum())
        assert float(level) == pytest.approx(5, abs=0.1)


def test_babble_has_its_level_and_is_made_of_the_corpus(utterances) -> None:
    views = ViewsConfig(noise=1.0, babble=1.0, snr_min=5, snr_max=5)
    plain, noisy = (
        ViewExamples(Recordings(utterances, 16_000), config, seed=3)(BatchSpec(Position(0, 0), (0,))).second
        for config in (ViewsConfig(), views)
    )
    added = (noisy - plain)[0]
    assert float(10 * torch.log10(plain.square().sum() / added.square().sum())) == pytest.approx(5, abs=0.1)
    # Of two to five voices, each from a place in a file on, one at least explains a good part of the sum.
    likeness = 0.0
    size = 1 << 18
    spectrum = torch.fft.rfft(added / added.norm(), size)
    for utterance in utterances:
        voice = read(utterance.path)
        voice = voice.repeat(-(-48_000 // len(voice)))
        match = torch.fft.irfft(torch.fft.rfft(voice, size) * spectrum.conj(), size)[: len(voice) - 16_000]
        energy = voice.square().cumsum(0)
        window = (energy[16_000:] - energy[:-16_000]).sqrt().clamp_min(1e-3)
        likeness = max(likeness, float((match[: len(window)] / window).max()))
    assert likeness > 0.4


def test_the_second_view_is_late_or_early(utterances) -> None:
    plain, shifted = (
        ViewExamples(Recordings(utterances, 16_000), config, seed=3)(BatchSpec(Position(0, 0), (0, 5)))
        for config in (ViewsConfig(), ViewsConfig(shift=160))
    )
    lags = []
    for one, two, length in zip(plain.second, shifted.second, plain.lengths.tolist(), strict=True):
        inner = two[160 : length - 160]
        found = [lag for lag in range(-160, 161) if torch.equal(one[160 - lag : length - 160 - lag], inner)]
        assert len(found) == 1
        lags += found
    assert len(set(lags)) == 2
    assert not shifted.second[1, shifted.lengths[1] :].any()


def test_a_narrow_band_has_nothing_above_it(utterances) -> None:
    views = ViewsConfig(band=1.0, band_min=3_000, band_max=3_000)
    plain, narrow = (
        ViewExamples(Recordings(utterances, 16_000), config, seed=3)(BatchSpec(Position(0, 0), (0, 5)))
        for config in (ViewsConfig(), views)
    )
    assert not narrow.second[1, narrow.lengths[1] :].any()
    before, after = (torch.fft.rfft(batch.second[0].double()).abs().square() for batch in (plain, narrow))
    # Bins of 1 Hz.
    assert after[3_100:].sum() < 1e-4 * before[3_100:].sum()
    assert float(after[:2_600].sum() / before[:2_600].sum()) == pytest.approx(1, abs=1e-3)


def test_the_chance_of_noise_reverb_and_a_narrow_band(utterances) -> None:
    plain = ViewExamples(Recordings(utterances, 8_000), ViewsConfig(), seed=3)
    for change in ({"noise": 0.5}, {"reverb": 0.5}, {"band": 0.5}):
        examples = ViewExamples(Recordings(utterances, 8_000), ViewsConfig(**change), seed=3)
        changed = [
            not torch.equal(a, b)
            for epoch in range(8)
            for a, b in zip(
                plain(BatchSpec(Position(epoch, 0), (0, 1, 2))).second,
                examples(BatchSpec(Position(epoch, 0), (0, 1, 2))).second,
                strict=True,
            )
        ]
        assert 4 <= sum(changed) <= 20


def test_masked_batches(utterances, labels) -> None:
    examples = MaskedExamples(Recordings(utterances, 16_000), [labels], MaskConfig(), seed=0)
    batch = examples(BatchSpec(Position(0, 0), (0, 5)))
    assert batch.labels.shape == (2, 49, 1)
    assert batch.masked.shape == (2, 49)
    assert (batch.labels[1] >= 0).sum() == 43
    assert not batch.masked[1, 43:].any()
    assert torch.equal(batch.masked, examples(BatchSpec(Position(0, 3), (0, 5))).masked)
    assert not torch.equal(batch.masked, examples(BatchSpec(Position(1, 0), (0, 5))).masked)


def test_masks_are_spans_and_cover_what_they_should() -> None:
    rng = np.random.default_rng(0)
    masks = [span_mask(rng, 300, MaskConfig()) for _ in range(300)]
    for mask in masks:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
        assert (edges[1::2] - edges[::2]).min() >= 10
    # 24 spans of 10 among 291 starts: a frame stays visible when none of the 10 starts that reach it is taken.
    assert np.mean(masks) == pytest.approx(1 - (1 - 24.5 / 291) ** 10, abs=0.03)
    for frames in (1, 2, 3, 12, 19):
        assert 1 <= span_mask(rng, frames, MaskConfig()).sum() <= max(1, frames - 1)
    assert span_mask(rng, 5, MaskConfig(probability=1.0)).sum() == 4
    with pytest.raises(ValueError, match="at least 1"):
        span_mask(rng, 0, MaskConfig())


ALWAYS = SurroundingsConfig(piece=1, piece_max=0.8, pause=1, pause_max=0.5, neighbour=1, neighbour_max=0.5)


def test_second_views_hold_a_piece_of_the_first(utterances) -> None:
    """With no voice changed, the shared frames of both views read the same samples."""
    views = ViewsConfig(surroundings=ALWAYS)
    examples = ViewExamples(Recordings(utterances, 16_000), views, seed=3)
    examples._second = lambda waveforms, lengths, rngs: waveforms
    places = []
    for epoch in range(8):
        batch = examples(BatchSpec(Position(epoch, 0), (0, 5)))
        for row, (original, first, count) in enumerate(batch.shared.tolist()):
            size = num_samples(count)
            one = batch.inputs[row, original * HOP : original * HOP + size]
            two = batch.second[row, first * HOP : first * HOP + size]
            assert len(one) == size
            torch.testing.assert_close(one, two, rtol=0, atol=0)
            assert first + count <= num_frames(int(batch.second_lengths[row]))
            assert 20 <= count <= 40
            places.append((original, first))
    assert len({original for original, _ in places}) > 5
    assert len({first for _, first in places}) > 5
    assert batch.second_lengths.max() == batch.second.shape[1]


def test_level_and_offset_change_with_the_surroundings(utterances) -> None:
    config = SurroundingsConfig(gain=1, gain_min=-20, gain_max=-20, offset=1, offset_max=0.1)
    examples = ViewExamples(Recordings(utterances, 16_000), ViewsConfig(surroundings=config), seed=3)
    examples._second = lambda waveforms, lengths, rngs: waveforms
    batch = examples(BatchSpec(Position(0, 0), (0,)))
    offset = batch.second[0] - 0.1 * batch.inputs[0]
    assert float(offset.std()) < 1e-6
    assert 0 < abs(float(offset.mean())) <= 0.1
    assert batch.shared.tolist() == [[0, 0, 49]]


def test_labels_move_with_the_piece(utterances, labels) -> None:
    """What stands around a piece has no labels and is not masked."""
    recordings = Recordings(utterances, 16_000)
    views = ViewExamples(recordings, ViewsConfig(surroundings=ALWAYS), seed=3)
    examples = MaskedExamples(recordings, [labels], MaskConfig(), 3, views=views)
    plain = MaskedExamples(recordings, [labels], MaskConfig(), 3)
    for epoch in range(4):
        spec = BatchSpec(Position(epoch, 0), (0, 5))
        batch, whole = examples(spec), plain(spec)
        assert batch.labels.shape == (*batch.masked.shape, 1)
        for row in range(2):
            known = (batch.labels[row, :, 0] >= 0).nonzero()[:, 0]
            assert 20 <= len(known) == known[-1] - known[0] + 1 <= 40
            text = ",".join(map(str, whole.labels[row, :, 0].tolist()))
            assert ",".join(map(str, batch.labels[row, known, 0].tolist())) in text
            assert not batch.masked[row, : known[0]].any()
            assert not batch.masked[row, known[-1] + 1 :].any()
            assert batch.masked[row].any()


def test_pauses_have_no_labels_if_asked(utterances, labels) -> None:
    recordings = Recordings(utterances, 10**6)
    spec = BatchSpec(Position(0, 0), (0, 5))
    every = MaskedExamples(recordings, [labels, labels], MaskConfig(), 3)(spec).labels
    some = MaskedExamples(recordings, [labels, labels], MaskConfig(), 3, pauses=False)(spec).labels
    assert torch.equal(every[..., 0], every[..., 1])
    assert torch.equal(some[..., 1], every[..., 1])
    found = torch.from_numpy(pauses(read(utterances[0].path)))
    assert 0 < int(found.sum()) < len(found)
    assert torch.equal(some[0, : len(found), 0] == -1, found)


def test_labels_of_several_codebooks(utterances, tmp_path) -> None:
    tokenizer = load("mfcc-kmeans-100")
    found = code_labels(tokenizer, utterances, tmp_path, CPU, no_progress, tokenizer.codebook_names * 2)
    expected = tokenizer.encode(utterances[0].path).codes
    assert found.codes[0].tolist() == np.stack([expected, expected], 1).tolist()


def test_pauses_are_long_and_quiet() -> None:
    rng = np.random.default_rng(0)
    loud = torch.from_numpy(0.1 * rng.standard_normal(16_000).astype(np.float32))
    # 0.5 s of silence in the middle, and a closure of 60 ms.
    loud[4_000:12_000] *= 1e-3
    loud[14_000:14_960] *= 1e-3
    found = pauses(loud)
    assert found[13:36].all()
    assert not found[:12].any()
    assert not found[38:].any()
    # Steady sound has no pauses, and neither has silence.
    assert not pauses(loud[:4_000]).any()
    assert not pauses(torch.zeros(4_000)).any()


def test_chunks_are_drawn_for_each_batch() -> None:
    def examples(spec: BatchSpec) -> Batch:
        return Batch(spec.position, 1.0, torch.zeros(1, 1), torch.ones(1))

    drawn = [WithChunks(examples, (0, 4, 16), 1)(BatchSpec(Position(1, n), ())).chunk for n in range(60)]
    assert set(drawn) == {None, 4, 16}
    again = [WithChunks(examples, (0, 4, 16), 1)(BatchSpec(Position(1, n), ())).chunk for n in range(60)]
    assert drawn == again
