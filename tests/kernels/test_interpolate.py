import numpy as np
import pytest
import torch
from spintok_kernels.perturb.interpolate import interpolants, read

RATE = 16000
MARGIN = 20


def tone(frequency, count=4000):
    return torch.sin(2 * np.pi * frequency / RATE * torch.arange(count, dtype=torch.float64)).float()


def read_at(waves, speed, position):
    """Both rows of ``waves`` at one ``position`` (N,), in samples."""
    planes = interpolants(waves, speed, MARGIN)
    whole = position.floor()
    column = whole.long() + MARGIN + planes[0].shape[1] * torch.arange(len(waves))[:, None]
    return read(planes, column, (position - whole).float().expand(len(waves), -1))


@pytest.mark.parametrize("speed", [0.75, 1.0, 1.3])
@pytest.mark.parametrize(("frequency", "error"), [(300, 2e-4), (2000, 1e-3), (4000, 1e-2)])
def test_tones_between_their_samples(speed, frequency, error):
    position = 500 + speed * torch.arange(2000, dtype=torch.float64)
    waves = torch.stack([tone(frequency), -2 * tone(frequency)])
    values = read_at(waves, torch.tensor([speed, speed]), position)
    truth = torch.sin(2 * np.pi * frequency / RATE * position)
    # The cubic through four nodes is within 0.0156 w^4 / 4!, 4e-3 at 4 kHz; the short filter adds as much.
    assert (values[0] - truth).abs().max() < error
    assert (values[1] + 2 * truth).abs().max() < 2 * error


def test_what_would_fold_is_removed_for_the_fast_reader_only():
    waves = tone(7000).expand(2, -1)
    values = read_at(waves, torch.tensor([1.4, 1.0]), 500 + torch.arange(2000, dtype=torch.float64))
    # Read 1.4 times as fast, 7 kHz would be heard at 6.2 kHz.
    assert values[0].square().mean() < 5e-4 * values[1].square().mean()
    torch.testing.assert_close(values[1], waves[1, 500:2500], atol=1e-6, rtol=0)


def test_silence_beyond_the_ends():
    values = read_at(torch.ones(1, 100), torch.ones(1), torch.tensor([-15.5, -11.0, 50.0, 112.0, 119.9]))
    torch.testing.assert_close(values, torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), atol=1e-5, rtol=0)
