"""Linear layers and attention whose rows do not depend on other rows: by torch, and in Triton's interpreter."""

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from spintok_kernels import reference
from spintok_kernels.attention import attend
from spintok_kernels.linear import linear
from torch import Tensor

LINEAR = "spintok_kernels.linear.triton"
ATTENTION = "spintok_kernels.attention.triton"
Linear = Callable[..., Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def torch_linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype) -> Tensor:
    return linear(x, weight, bias, gelu=gelu, out_dtype=dtype)


def torch_attend(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None, gate: Tensor | None
) -> Tensor:
    return attend(q, k, v, lengths, positions, gate)


@pytest.fixture(params=["torch", "triton"])
def the_linear(request: pytest.FixtureRequest, interpreted: Callable[..., ModuleType]) -> Linear:
    if request.param == "torch":
        return torch_linear
    kernels = interpreted(LINEAR)
    # Small tiles, so that several tiles and tails come with few numbers.
    tile = kernels.Tile(16, 32, 16, {"num_warps": 4})
    return lambda *arguments: kernels.linear(*arguments, tile=tile)


@pytest.fixture(params=["torch", "triton"])
def the_attend(request: pytest.FixtureRequest, interpreted: Callable[..., ModuleType]) -> Linear:
    if request.param == "torch":
        return torch_attend
    kernels = interpreted(ATTENTION)
    tile = kernels.Tile(16, 16, {"num_warps": 4})
    return lambda *arguments: kernels.attend(*arguments, tile=tile)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 70, 50), (17, 8, 10), (33, 32, 64)])
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_is_the_definition(
    the_linear: Linear, shape: tuple[int, int, int], gelu: bool, dtype: torch.dtype
) -> None:
    m, n, k = shape
    x, weight, bias = normal(m, k).to(dtype), normal(n, k, seed=1).to(dtype), normal(n, seed=2)
    expected = reference.linear(x, weight, bias, gelu=gelu)
    found = the_linear(x, weight, bias, gelu, dtype)
    # k float32 additions of terms near 1, or one rounding to float16 of numbers up to 4 sqrt(k).
    bound = 2**-23 * k + 2**-22 if dtype is torch.float32 else 2**-10 * 4 * math.sqrt(k) + 2**-9
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)
    assert found.dtype is dtype


def test_groups_overlapping_rows_and_no_bias(the_linear: Linear) -> None:
    """A grouped convolution over time: rows of three taps that overlap."""
    signal, weight = normal(2, 30, 5), normal(2, 7, 15, seed=1)
    rows = signal.flatten(1).unfold(1, 15, 5)
    found = the_linear(rows, weight, None, False, torch.float32)
    expected = torch.nn.functional.conv1d(
        signal.transpose(1, 2).reshape(1, 10, 30), weight.view(14, 3, 5).transpose(1, 2), groups=2
    )
    torch.testing.assert_close(found.transpose(1, 2).reshape(1, 14, -1), expected, rtol=1e-5, atol=1e-5)


def test_rows_are_rounded_to_the_type_of_the_weight(the_linear: Linear) -> None:
    x, weight = normal(20, 40), normal(24, 40, seed=1).half()
    found = the_linear(x, weight, None, False, torch.float32)
    expected = reference.linear(x.half(), weight)
    # Of torch's result, which is rounded to float16 first.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2**-10 * 4 * math.sqrt(40))
    assert found.dtype is torch.float32


def test_no_rows(the_linear: Linear) -> None:
    assert the_linear(normal(0, 5), normal(4, 5), None, False, torch.float32).shape == (0, 4)


@pytest.mark.usefixtures("sum_in_order")
def test_a_row_has_the_same_bits_alone_and_in_any_batch(interpreted: Callable[..., ModuleType]) -> None:
    """With the tiles that a GPU uses."""
    kernels = interpreted(LINEAR)
    x, weight, bias = normal(300, 70), normal(150, 70, seed=1), normal(150, seed=2)
    whole = kernels.linear(x, weight, bias, True, torch.float32)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    assert torch.equal(kernels.linear(x[order], weight, bias, True, torch.float32), whole[order])
    for part in (slice(0, 1), slice(127, 129), slice(37, 200), slice(299, 300)):
        assert torch.equal(kernels.linear(x[part], weight, bias, True, torch.float32), whole[part])


def gated(heads: int, frames: int, batch: int) -> tuple[Tensor, Tensor]:
    return normal(heads, frames, frames, seed=5), normal(batch, heads, frames, seed=6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (3, 37, 2, 8), (2, 16, 3, 20)])
def test_attention_is_the_definition(
    the_attend: Linear, shape: tuple[int, int, int, int], positions: bool, dtype: torch.dtype
) -> None:
    batch, frames, heads, _ = shape
    q, k, v = normal(*shape[:2], 3, *shape[2:]).to(dtype).unbind(2)
    lengths = torch.tensor([frames, frames // 2, 0][:batch])
    bias = gated(heads, frames, batch) if positions else (None, None)
    expected = reference.attend(q, k, v, lengths, *bias)
    found = the_attend(q, k, v, lengths, *bias)
    # The exponent of a score of up to 20 has its rounding error; a result is a mean of numbers up to 4.
    bound = 1e-5 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)
    assert not found[lengths == 0].any()


@pytest.mark.usefixtures("sum_in_order")
@pytest.mark.parametrize("positions", [False, True])
def test_an_utterance_has_the_same_bits_whatever_its_padding(
    interpreted: Callable[..., ModuleType], positions: bool
) -> None:
    """With the tiles that a GPU uses. The padding is full of NaN."""
    kernels = interpreted(ATTENTION)
    lengths = [150, 3, 64, 97]
    frames, heads, width = 170, 2, 16
    qkv = torch.full((4, frames, 3, heads, width), torch.nan)
    for row, length in enumerate(lengths):
        qkv[row, :length] = normal(length, 3, heads, width, seed=row)
    table, gate = gated(heads, frames, 4)
    bias = (table, gate) if positions else (None, None)
    batch = kernels.attend(*qkv.unbind(2), torch.tensor(lengths), *bias)
    for row, length in enumerate(lengths):
        alone = qkv[row : row + 1, :length].contiguous()
        bias = (table[:, :length, :length], gate[row : row + 1, :, :length]) if positions else (None, None)
        found = kernels.attend(*alone.unbind(2), torch.tensor([length]), *bias)
        assert torch.equal(found[0], batch[row, :length])
        assert not batch[row, length:].any()


def test_wrong_arguments() -> None:
    x, weight = normal(4, 6), normal(3, 6)
    for arguments, message in (
        ((x.double(), weight.double()), "float16"),
        ((x.half(), weight), "float16"),
        ((x, weight[:, :5]), "(M, K)"),
        ((x[None], weight[None].expand(2, 3, 6)), "groups"),
        ((x, weight, normal(4)), "bias"),
        ((normal(6, 4).t(), weight), "contiguous"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            linear(*arguments)
    q = normal(2, 5, 3, 4)
    lengths = torch.tensor([5, 2])
    for arguments, message in (
        ((q.double(),) * 3, "float16"),
        ((q, q, q[:, :4]), "E <= 256"),
        ((q, q.transpose(1, 2).contiguous().transpose(1, 2), q), "strides"),
        ((q, q, q), "int64"),
        ((q, q, q, lengths, normal(3, 5, 5), None), "together"),
        ((q, q, q, lengths, normal(3, 5, 4), normal(2, 3, 5)), "positions, gate"),
    ):
        with pytest.raises(ValueError, match=message):
            attend(*arguments[:3], arguments[3] if len(arguments) > 3 else lengths.int(), *arguments[4:])
