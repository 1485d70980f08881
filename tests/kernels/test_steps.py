"""Compiled steps of streams against their definition, and each stream in company against itself alone."""

import pytest
import torch
from spintok_kernels.reference import transformer_step
from spintok_kernels.steps import STEPS, LayerWeights, PackedConvolution, PackedLayers
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture(params=["avx512", "avx2", "portable"])
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(STEPS.variable, request.param)
    try:
        STEPS.choose()
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


def weights(layers: int, width: int, hidden: int, seed: int = 0) -> list[LayerWeights]:
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    return [
        LayerWeights(
            1 + matrix(width),
            matrix(width),
            2 * matrix(3 * width, width),
            matrix(3 * width),
            matrix(width, width),
            matrix(width),
            1 + matrix(width),
            matrix(width),
            matrix(hidden, width),
            matrix(hidden),
            matrix(width, hidden),
            matrix(width),
        )
        for _ in range(layers)
    ]


def past_of(layers: int, heads: int, past: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    shape = (layers, heads, past, width // heads)
    # Among them numbers that float16 has only as subnormal ones.
    return (torch.randn(shape) * 10 ** (-6 * torch.rand(shape))).half(), torch.randn(shape).half()


SHAPES = [
    # width, heads, hidden, past, frames, chunk
    (64, 2, 96, 20, 16, 16),
    (64, 1, 128, 150, 4, 4),
    (24, 3, 40, 6, 5, 3),
    (32, 2, 64, 0, 1, 1),
    (16, 2, 20, 3, 40, 37),
]


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize(("width", "heads", "hidden", "past", "frames", "chunk"), SHAPES)
def test_equals_the_definition(width, heads, hidden, past, frames, chunk, pre, core) -> None:
    layers = weights(3, width, hidden)
    packed = PackedLayers(layers, heads, pre=pre, eps=1e-5)
    keys, values = past_of(3, heads, past, width, seed=1)
    gone = past // 2
    x = torch.randn(frames, width)
    valid = max(1, frames - 2)
    old = keys[:, :, past - gone :], values[:, :, past - gone :]
    want, new_keys, new_values = transformer_step(x, layers, *old, valid, pre=pre, eps=1e-5)
    after = keys.clone(), values.clone()
    found = packed.run(x[None].clone(), [after[0]], [after[1]], [gone], [valid], chunk, [1, 3])
    assert set(found) == {1, 3}
    for layer, got in found.items():
        assert (got[0] - want[layer - 1]).norm() < 3e-6 * want[layer - 1].norm()
    for before, new, got in zip((keys, values), (new_keys, new_values), after, strict=True):
        both = torch.cat([before, new[:, :, :chunk].float().half()], 2)
        torch.testing.assert_close(got, both[:, :, both.shape[2] - past :], atol=1e-3, rtol=2e-3)


def test_company_changes_no_bit(core) -> None:
    layers = weights(2, 48, 64)
    packed = PackedLayers(layers, 3, pre=True, eps=1e-5)
    pasts = [past_of(2, 3, 9, 48, seed) for seed in range(7)]
    x = torch.randn(7, 6, 48)
    gone, valid = [0, 1, 5, 9, 100, 3, 9], [6, 6, 1, 4, 6, 2, 6]
    copies = [(keys.clone(), values.clone()) for keys, values in pasts]
    together = packed.run(x.clone(), *zip(*copies, strict=True), gone, valid, 4, [1, 2])
    for row, (keys, values) in enumerate(pasts):
        alone = packed.run(
            x[row : row + 1].clone(), [keys], [values], gone[row : row + 1], valid[row : row + 1], 4, [1, 2]
        )
        for layer in (1, 2):
            assert torch.equal(alone[layer][0], together[layer][row])
        assert torch.equal(keys, copies[row][0])
        assert torch.equal(values, copies[row][1])


@pytest.mark.parametrize(("groups", "inner", "outputs", "taps", "frames"), [(4, 16, 64, 64, 16), (2, 3, 10, 8, 1)])
def test_convolution_equals_the_definition(groups, inner, outputs, taps, frames, core) -> None:
    weight, bias = torch.randn(outputs, inner, taps) * (inner * taps) ** -0.5, torch.randn(outputs)
    x = torch.randn(3, frames + taps - 1, groups * inner)
    packed = PackedConvolution(weight, bias, groups)
    found = packed.run(x)
    want = F.gelu(F.conv1d(x.double().mT, weight.double(), bias.double(), groups=groups).mT)
    assert (found - want).norm() < 1e-6 * want.norm()
    assert torch.equal(packed.run(x[1:2])[0], found[1])


def test_gelu_is_exact_to_rounding(core) -> None:
    x = torch.linspace(-12, 12, 20_001)[:, None]
    (found,) = PackedConvolution(torch.ones(1, 1, 1), torch.zeros(1), 1).run(x[None])
    assert (found - F.gelu(x.double())).abs().max() < 5e-7


def test_a_snapshot_knows_its_weights(core) -> None:
    layers = weights(2, 16, 20)
    packed = PackedLayers(layers, 2, pre=True, eps=1e-5)
    assert packed.equals(layers)
    assert not packed.equals(layers[:1])
    layers[1].contract_bias[3] += 1
    assert not packed.equals(layers)


def test_wrong_arguments_are_refused(core) -> None:
    packed = PackedLayers(weights(2, 16, 20), 2, pre=True, eps=1e-5)
    keys, values = past_of(2, 2, 3, 16, seed=1)
    with pytest.raises(ValueError, match="float16"):
        packed.run(torch.zeros(1, 4, 16), [keys.float()], [values], [0], [4], 4, [2])
    with pytest.raises(ValueError, match="contiguous float32"):
        packed.run(torch.zeros(1, 4, 24), [keys], [values], [0], [4], 4, [2])


def test_without_a_core_there_is_nothing_to_pack(monkeypatch) -> None:
    monkeypatch.setenv(STEPS.variable, "torch")
    with pytest.raises(RuntimeError, match="SPINTOK_STEPS_CPU"):
        PackedLayers(weights(1, 16, 20), 2, pre=True, eps=1e-5)
