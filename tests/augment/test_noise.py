import numpy as np
import pytest
import torch

from spintok.augment.noise import add_noise, add_reverb, colored_noise, impulse_responses


def test_noise_has_the_asked_snr_over_the_utterance_only():
    rng = np.random.default_rng(0)
    speech = colored_noise(rng, 3, 5000, 1.0) * torch.tensor([[1.0], [0.1], [0.01]])
    lengths = torch.tensor([5000, 3001, 1234])
    snr = torch.tensor([-5.0, 0.0, 20.0])
    noisy = add_noise(speech, lengths, colored_noise(rng, 3, 777), snr)
    for row, length in enumerate(lengths.tolist()):
        clean = speech[row, :length].double()
        added = noisy[row, :length].double() - clean
        measured = 10 * torch.log10(clean.square().sum() / added.square().sum())
        assert measured.item() == pytest.approx(snr[row].item(), abs=1e-3)
        assert not noisy[row, length:].any()


def test_noise_leaves_silence_and_is_left_out_when_silent():
    rng = np.random.default_rng(0)
    lengths = torch.tensor([100, 0])
    noise = colored_noise(rng, 2, 100)
    zeros = torch.zeros(2, 100)
    assert not add_noise(zeros, lengths, noise, torch.zeros(2)).any()
    assert torch.equal(add_noise(noise, torch.tensor([100, 100]), zeros, torch.zeros(2)), noise)


def test_reverb_is_the_convolution_without_the_delay():
    rng = np.random.default_rng(1)
    speech = colored_noise(rng, 2, 900)
    lengths = torch.tensor([900, 500])
    responses = torch.zeros(2, 40)
    responses[:, 7] = 3.0
    responses[:, 20] = torch.tensor([1.0, -2.0])
    wet = add_reverb(speech, lengths, responses)
    for row, length in enumerate(lengths.tolist()):
        unit = (responses[row] / responses[row].norm()).double().numpy()
        expected = np.convolve(speech[row, :length].double().numpy(), unit)[7 : 7 + length]
        np.testing.assert_allclose(wet[row, :length].numpy(), expected, atol=2e-6)
        assert not wet[row, length:].any()


@pytest.mark.parametrize(("samples", "taps"), [(1, 1), (10, 500), (16_384, 1), (76_543, 12_800), (50_000, 9_000)])
def test_reverb_in_blocks_is_that_in_one_piece(samples, taps):
    rng = np.random.default_rng(4)
    speech, room = colored_noise(rng, 2, samples), colored_noise(rng, 2, taps)
    # The largest sample is the direct sound.
    room[:, 0] = 10.0
    wet = add_reverb(speech, torch.tensor([samples] * 2), room)
    size = samples + taps
    unit = room.double() / room.double().norm(dim=1, keepdim=True)
    whole = torch.fft.irfft(torch.fft.rfft(speech.double(), size) * torch.fft.rfft(unit, size), size)[:, :samples]
    torch.testing.assert_close(wet.double(), whole, atol=5e-6, rtol=0)


@pytest.mark.parametrize("samples", [1, 2, 7, 16, 76_543])
def test_noise_of_any_length(samples):
    noise = colored_noise(np.random.default_rng(6), 2, samples, 1.0)
    assert noise.shape == (2, samples)
    assert noise.square().mean(1).numpy() == pytest.approx(np.ones(2), rel=1e-4)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_colored_noise_falls_with_its_slope(slope):
    noise = colored_noise(np.random.default_rng(2), 8, 1 << 15, slope)
    assert noise.square().mean(1).numpy() == pytest.approx(np.ones(8), rel=1e-4)
    power = torch.fft.rfft(noise.double()).abs().square().mean(0)
    # Two octave bands, four octaves apart: the standard error of each is below 0.1 dB.
    low, high = power[512:1024].mean(), power[8192:16384].mean()
    assert 10 * torch.log10(low / high).item() == pytest.approx(10 * slope * np.log10(16), abs=0.6)


def test_impulse_response_decays_by_60_db_in_its_rt60():
    rt60 = torch.tensor([0.3, 0.9])
    responses = impulse_responses(np.random.default_rng(3), rt60, direct_db=6.0)
    for response, seconds in zip(responses.double(), rt60.tolist(), strict=True):
        tail = response[1:]
        assert 10 * torch.log10(response[0] ** 2 / tail.square().sum()).item() == pytest.approx(6.0, abs=1e-3)
        start, end = (tail[int(seconds * at) : int(seconds * (at + 1600))] for at in (0, 8000))
        # 30 dB in half the time; 480 and more samples a window, so +- 0.6 dB is three standard errors.
        assert 10 * torch.log10(start.square().sum() / end.square().sum()).item() == pytest.approx(30, abs=0.9)


def test_same_generator_same_material():
    first = colored_noise(np.random.default_rng(5), 2, 100, 1.0)
    assert torch.equal(first, colored_noise(np.random.default_rng(5), 2, 100, 1.0))


def test_what_does_not_fit_is_refused():
    waveforms, lengths = torch.zeros(2, 10), torch.tensor([10, 10])
    with pytest.raises(ValueError, match="noise must be"):
        add_noise(waveforms, lengths, torch.zeros(1, 10), torch.zeros(2))
    with pytest.raises(ValueError, match="snr_db must be"):
        add_noise(waveforms, lengths, waveforms, torch.zeros(1))
    with pytest.raises(ValueError, match="responses must be"):
        add_reverb(waveforms, lengths, torch.zeros(2, 0))
    with pytest.raises(ValueError, match="need waveforms"):
        add_reverb(waveforms, torch.tensor([10]), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="rt60"):
        impulse_responses(np.random.default_rng(0), torch.tensor([0.0]))
