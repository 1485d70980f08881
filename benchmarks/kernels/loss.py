"""The swapped-prediction loss, forward and backward, next to what a user would write instead."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from spintok_kernels import swapped_prediction_loss
from spintok_kernels.swapped_prediction.cpu import LOSS
from torch import Tensor

from . import switches
from .harness import Agreement, Case, Provider, Settings

__all__ = ["cases"]

TEMPERATURE, EPSILON, ITERATIONS = 0.1, 0.02, 3
# Rows of the batch that are compared with float64; all of them take too long on a CPU.
SAMPLE = 1024

Result = tuple[Tensor, tuple[Tensor, ...]]


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every shape with and without the training metrics. N is frames a view."""
    for d in settings.d:
        for k in settings.k:
            for n in settings.n:
                for metrics in (False, True):
                    yield _case(n, k, d, metrics, settings.device)


def _case(n: int, k: int, d: int, metrics: bool, device: str) -> Case:
    return Case(
        op="loss",
        mode="step+metrics" if metrics else "step",
        shape={"N": n, "K": k, "D": d},
        # Two views; scores, their gradient times the codebook, and times the embeddings.
        flops=3 * 2 * 2.0 * n * k * d,
        # Embeddings and codebook in, their gradients out.
        bytes=2 * 4.0 * (2 * n * d + k * d),
        build=lambda: _providers(n, k, d, metrics, device),
    )


def _inputs(n: int, k: int, d: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator(device).manual_seed(0)
    z1, noise, codebook = (F.normalize(torch.randn(m, d, generator=rng, device=device)) for m in (n, n, k))
    return z1, F.normalize(z1 + 0.5 * noise), codebook


def _providers(n: int, k: int, d: int, metrics: bool, device: str) -> list[Provider]:
    inputs = tuple(x.requires_grad_() for x in _inputs(n, k, d, device))
    sample = tuple(x.detach()[:SAMPLE].contiguous().requires_grad_() for x in inputs[:2]) + inputs[2:]
    truth = _step(lambda *x: _literal(*x, False), tuple(x.detach().double().requires_grad_() for x in sample))()
    stored = 4.0 * 2 * n * k

    def provider(
        name: str,
        loss: Callable[..., Tensor],
        tolerance: float,
        buffers: float,
        context: Callable[[], Any] = nullcontext,
        make: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda loss: loss,
        half: bool = False,
    ) -> Provider:
        def setup() -> Callable[[], Result]:
            return _step(make(loss), inputs)

        def check(result: Result) -> Agreement:
            # The results of the timed batch must be finite; those of a slice of it are compared with float64.
            if not all(torch.isfinite(x).all() for x in (result[0], *result[1])):
                return Agreement(problem="not finite")
            got = _step(loss, sample)()
            pairs = zip((got[0], *got[1]), (truth[0], *truth[1]), strict=True)
            worst = max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)
            return Agreement(worst=worst, problem="" if worst < tolerance else f"relative error {worst:.1e}")

        precision = "tf32" if "TF32" in name else "float16" if half else "float32"
        return Provider(name, setup, check, buffers * stored, context, precision)

    def eager(*x: Tensor) -> Tensor:
        return _eager(*x, metrics)

    def literal(*x: Tensor) -> Tensor:
        return _literal(*x, metrics)

    def ours(**options: Any) -> Callable[..., Tensor]:
        return lambda *x: swapped_prediction_loss(*x, metrics=metrics, **options).loss

    def compile_(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        torch._dynamo.reset()
        return torch.compile(loss, dynamic=False)

    def graphed(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        torch._dynamo.reset()
        return torch.compile(loss, dynamic=False, mode="reduce-overhead")

    precision = {
        "highest": lambda: switches.matmul_precision("highest"),
        "high": lambda: switches.matmul_precision("high"),
    }
    found = [
        provider("Spin, as published", literal, 1e-5, 6, precision["highest"]),
        provider("torch float32", eager, 1e-5, 5, precision["highest"]),
        provider("torch.compile float32", eager, 1e-5, 3, precision["highest"], compile_),
    ]
    if device == "cuda":

        def autocast(*x: Tensor) -> Tensor:
            with torch.autocast("cuda", torch.float16):
                return _eager(*x, metrics)

        part = int(2 * stored / 4 / 4)
        return [
            *found,
            provider("torch TF32", eager, 2e-2, 5, precision["high"]),
            provider("torch.compile TF32", eager, 2e-2, 3, precision["high"], compile_),
            provider("torch.compile TF32 reduce-overhead", eager, 2e-2, 3, precision["high"], graphed),
            provider("torch autocast float16", autocast, 2e-2, 5, half=True),
            provider("spintok kept", ours(memory_budget=1 << 40), 3e-3, 0.5, half=True),
            provider("spintok recomputed", ours(memory_budget=part), 3e-3, 0.2, half=True),
            provider("spintok float32 scores", ours(score_dtype=torch.float32), 1e-5, 1),
        ]
    for core in ("torch", "avx2", "avx512"):
        if switches.runs_here(LOSS, core):
            use = partial(switches.core, LOSS, core)
            found.append(provider(f"spintok kept ({core})", ours(memory_budget=1 << 40), 1e-5, 1, use))
    return [*found, provider("spintok recomputed", ours(memory_budget=int(stored / 4)), 1e-5, 0.3)]


def _step(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], Result]:
    def step() -> Result:
        value = loss(*inputs)
        return value.detach(), torch.autograd.grad(value, inputs)

    return step


def _eager(z1: Tensor, z2: Tensor, codebook: Tensor, metrics: bool) -> Tensor:
    """Compute the loss as fast as plain torch can: Sinkhorn in place, with two sums and two divisions an iteration."""
    scores = (z1 @ codebook.t(), z2 @ codebook.t())
    log_p = [torch.log_softmax(s / TEMPERATURE, 1) for s in scores]
    q = [_fast_sinkhorn(s.detach()) for s in scores]
    loss = -((q[1] * log_p[0]).sum() + (q[0] * log_p[1]).sum()) / (2 * len(z1))
    if metrics:
        _watch(scores, [p.detach().exp() for p in log_p])
    return loss


def _fast_sinkhorn(scores: Tensor) -> Tensor:
    with torch.no_grad():
        q = torch.exp((scores.float() - 1) / EPSILON)
        for _ in range(ITERATIONS):
            q /= q.sum(0)
            q /= q.sum(1, keepdim=True)
        return q


def _literal(z1: Tensor, z2: Tensor, codebook: Tensor, metrics: bool) -> Tensor:
    """Compute the loss as the published code does: Q as (K, N), every factor 1/K and 1/N, one mean for each view."""
    scores = (z1 @ codebook.t(), z2 @ codebook.t())
    q = [_literal_sinkhorn(s.detach()) for s in scores]
    log_p = [torch.log_softmax(s / TEMPERATURE, dim=1) for s in scores]
    loss = -0.5 * ((q[1] * log_p[0]).sum(1).mean() + (q[0] * log_p[1]).sum(1).mean())
    if metrics:
        _watch(scores, [p.detach().exp() for p in log_p])
    return loss


def _literal_sinkhorn(scores: Tensor) -> Tensor:
    with torch.no_grad():
        q = torch.exp(scores / EPSILON).t()
        k, n = q.shape
        q /= q.sum()
        for _ in range(ITERATIONS):
            q /= q.sum(1, keepdim=True)
            q /= k
            q /= q.sum(0, keepdim=True)
            q /= n
        q *= n
        return q.t()


def _watch(scores: tuple[Tensor, Tensor], predictions: list[Tensor]) -> tuple[Tensor, ...]:
    """Return perplexities of the predictions and of the nearest codewords, and the agreement of the views."""
    with torch.no_grad():
        codes = [s.argmax(1) for s in scores]
        k = scores[0].shape[1]
        shares = [p.mean(0) for p in predictions]
        shares += [torch.bincount(c, minlength=k).float() for c in codes]
        entropies = [torch.special.entr(p / p.sum()).sum().exp() for p in shares]
        return *entropies, (codes[0] == codes[1]).float().mean()
