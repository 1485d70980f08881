"""The operations of speaker perturbation: compiled for the CPU, and in torch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from spintok_kernels import perturb
from spintok_kernels.perturb.cpu import PERTURB
from torch import Tensor

from . import switches
from .harness import Agreement, Case, Provider, Settings

__all__ = ["cases"]

RATE = 16_000
# Differences to torch that rounding explains, relative to the largest number (see spintok/augment/NOTES.md).
TOLERANCE = 1e-3


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every operation for each batch of `batch` utterances with `samples` samples."""
    for batch in settings.batch:
        for samples in settings.samples:
            for name in ("decimate", "pitch_candidates", "choose_pitch", "overlap_add", "equalize"):
                yield _case(name, batch, samples, settings.device)


def _case(name: str, batch: int, samples: int, device: str) -> Case:
    frames = -(-samples // perturb.PITCH_HOP)
    waves, low, strengths = 4.0 * batch * samples, 4.0 * batch * 40 * frames, 4.0 * batch * frames * 96
    # Multiply-adds of the taps, of the spectra and correlations, of two interpolated grains, of ten biquads.
    flops, bytes = {
        "decimate": (2.0 * 49 * batch * 40 * frames, waves + low),
        "pitch_candidates": (2.0 * batch * frames * 64 * (80 * 2 + 96), low + strengths),
        "choose_pitch": (2.0 * batch * frames * 81, strengths),
        "overlap_add": (2.0 * batch * samples * (4 * 18 + 8), 2 * waves + low),
        "equalize": (2.0 * batch * samples * 10 * 5, 2 * waves),
    }[name]
    return Case(
        "perturb", name, {"B": batch, "S": samples}, flops, bytes, lambda: _providers(name, batch, samples, device)
    )


def _providers(name: str, batch: int, samples: int, device: str) -> list[Provider]:
    arguments = _arguments(name, batch, samples, device)
    call = partial(getattr(perturb, name), *arguments)
    with switches.core(PERTURB, "torch"):
        truth = _tensors(call())

    def check(result: Any) -> Agreement:
        # An utterance is a row: it is wrong if any of its numbers is.
        wrong, worst = torch.zeros(batch, dtype=torch.bool, device=device), 0.0
        for mine, true in zip(_tensors(result), truth, strict=True):
            size = true.abs().max().clamp_min(1e-30)
            error = ((mine - true).abs() / size).reshape(batch, -1).amax(1)
            wrong |= ~(error <= TOLERANCE)
            worst = max(worst, float(error.max()))
        problem = f"{int(wrong.sum())} of {batch} utterances differ, by up to {worst:.1e}" if wrong.any() else ""
        return Agreement(int(wrong.sum()), batch, worst, problem)

    cores = ["torch", "portable", "avx2", "avx512"] if device == "cpu" else ["torch"]
    found = []
    for core in cores:
        if core == "torch" or switches.runs_here(PERTURB, core):
            label = "torch" if core == "torch" else f"spintok ({core})"
            found.append(Provider(label, lambda: call, check, context=partial(switches.core, PERTURB, core)))
    return found


def _arguments(name: str, batch: int, samples: int, device: str) -> tuple[Tensor, ...]:
    """Vowels of different pitch with some noise, and what the operations before `name` make of them."""
    rng = torch.Generator().manual_seed(0)
    time = torch.arange(samples) / RATE
    f0 = torch.linspace(90, 280, batch)[:, None]
    waves = sum(torch.sin(2 * torch.pi * h * f0 * time) / h for h in range(1, 8)) / 4
    waves = (waves + 0.01 * torch.randn(batch, samples, generator=rng)).to(device)
    lengths = torch.full((batch,), samples, device=device)
    with switches.core(PERTURB, "torch"):
        low = perturb.decimate(waves, lengths)
        strengths, _ = perturb.pitch_candidates(low)
    bounds = torch.zeros(batch, device=device), torch.full((batch,), perturb.CANDIDATES - 1.0, device=device)
    cells = 2 * low.shape[1] // 40
    old = (f0 / RATE).to(device).expand(batch, cells).contiguous()
    edges = torch.ones(batch, cells, 2, device=device)
    bands = torch.randn(batch, perturb.BANDS, generator=rng).to(device)
    made: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "decimate": lambda: (waves, lengths),
        "pitch_candidates": lambda: (low,),
        "choose_pitch": lambda: (strengths, *bounds),
        "overlap_add": lambda: (
            *(waves, lengths, low, old, 1.2 * old, old > 0, edges, 0 * edges),
            torch.full((batch,), 1.1, device=device),
        ),
        "equalize": lambda: (waves, 6 * bands, torch.full_like(bands, 3.0)),
    }
    return made[name]()


def _tensors(result: Any) -> list[Tensor]:
    parts = list(result) if isinstance(result, tuple) else [result]
    # Strengths have columns of padding, whose numbers have no meaning.
    return [part[..., : perturb.CANDIDATES] if part.ndim == 3 else part for part in parts]
