"""The positional convolution: spectra against the direct sum."""

import pytest
import torch
from reference_features import difference

from spintok.models.positional import PositionalConv


def random_convolution(width: int = 12, kernel: int = 16, groups: int = 3) -> PositionalConv:
    torch.manual_seed(0)
    return PositionalConv(width, kernel, groups)


def direct(convolution: PositionalConv, x: torch.Tensor) -> torch.Tensor:
    out = torch.nn.functional.conv1d(
        x.double().transpose(1, 2),
        convolution.weight.double(),
        convolution.bias.double(),
        padding=convolution.kernel_size[0] // 2,
        groups=convolution.groups,
    )
    return torch.nn.functional.gelu(out[:, :, : x.shape[1]]).transpose(1, 2)


@pytest.mark.parametrize("kernel", [1, 2, 3, 7, 16, 128])
@pytest.mark.parametrize("frames", [1, 2, 16, 17, 18, 34, 51, 300])
def test_spectra_equal_the_sum_over_taps(kernel: int, frames: int) -> None:
    convolution = random_convolution(kernel=kernel)
    x = torch.randn(2, frames, 12, generator=torch.Generator().manual_seed(1))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            actual = convolution(x)
        # float32 rounding in sums of 4 * kernel terms.
        assert difference(actual, direct(convolution, x)) < 2e-6


@torch.no_grad()
def test_new_weights_count() -> None:
    """The stored spectrum follows every change of the weight."""
    convolution = random_convolution()
    x = torch.randn(1, 40, 12, generator=torch.Generator().manual_seed(1))
    convolution(x)
    convolution.weight.data.mul_(2.0)
    assert difference(convolution(x), direct(convolution, x)) < 2e-6
    convolution.weight[0, 0, 0] += 1.0
    assert difference(convolution(x), direct(convolution, x)) < 2e-6
    convolution.weight = torch.nn.Parameter(-convolution.weight)
    assert difference(convolution(x), direct(convolution, x)) < 2e-6
    assert set(convolution.state_dict()) == {"weight", "bias"}
