"""Codebook assignment, against what a user would write or install instead."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from spintok_kernels import assign, prepare
from spintok_kernels.assign.cpu import ASSIGN
from torch import Tensor

from . import switches
from .harness import Case, Provider, Settings, SkipError

__all__ = ["cases"]

# Rows whose ids are checked in float64.
SAMPLE = 512


def cases(settings: Settings) -> Iterator[Case]:
    """Every shape twice: "dot" is Spin (random unit rows), "l2" K-means (features with an offset)."""
    for d in settings.d:
        for k in settings.k:
            for n in settings.n:
                for metric in ("dot", "l2"):
                    yield _case(n, k, d, metric, settings.device)


def _case(n: int, k: int, d: int, metric: str, device: str) -> Case:
    return Case(
        op="assign",
        mode=metric,
        shape={"N": n, "K": k, "D": d},
        flops=2.0 * n * k * d,
        # Rows and codebook in, ids out.
        bytes=4.0 * (n * d + k * d + n),
        build=lambda: _providers(*_inputs(n, k, d, metric, device), metric),
    )


def _inputs(n: int, k: int, d: int, metric: str, device: str) -> tuple[Tensor, Tensor]:
    rng = torch.Generator(device).manual_seed(0)
    z = torch.randn(n, d, generator=rng, device=device)
    codebook = torch.randn(k, d, generator=rng, device=device)
    if metric == "dot":
        return torch.nn.functional.normalize(z), torch.nn.functional.normalize(codebook)
    offset = torch.randn(d, generator=rng, device=device)
    return z.add_(offset), codebook.mul_(0.5).add_(offset)


def _providers(z: Tensor, codebook: Tensor, metric: str) -> list[Provider]:
    cuda = z.is_cuda
    scores = 4.0 * len(z) * len(codebook)
    checks = _Checks(z, codebook, metric)

    def eager(dtype: torch.dtype | None = None) -> Tensor:
        with torch.autocast(z.device.type, dtype) if dtype else nullcontext():
            if metric == "dot":
                return (z @ codebook.t()).argmax(1)
            return torch.addmm(-0.5 * codebook.square().sum(1), z, codebook.t()).argmax(1)

    def compiled() -> Callable[[], Tensor]:
        torch._dynamo.reset()
        return torch.compile(eager, dynamic=False)

    float32, tf32 = (lambda: switches.matmul_precision("highest")), (lambda: switches.matmul_precision("high"))
    found = [
        Provider("torch float32", lambda: eager, checks.within(2.0**-20), 1.1 * scores, float32),
        Provider("torch.compile float32", compiled, checks.within(2.0**-20), 1.1 * scores, float32),
        Provider("faiss", lambda: _faiss(z, codebook, metric), checks.within(2.0**-18), 0),
    ]
    if cuda:
        found += [
            Provider("torch TF32", lambda: eager, checks.within(2.0**-8), 1.1 * scores, tf32),
            Provider("torch.compile TF32", compiled, checks.within(2.0**-8), 1.1 * scores, tf32),
            Provider("torch autocast float16", lambda: lambda: eager(torch.float16), checks.within(2.0**-8), scores),
        ]
        if metric == "l2":
            found.append(Provider("flash-kmeans", lambda: _flash(z, codebook), checks.within(2.0**-8), 0))
        found.append(Provider("spintok exact", lambda: _ours(z, codebook, metric), checks.exact, 0))
        return found
    if metric == "l2":
        found.append(Provider("scikit-learn", lambda: _sklearn(z, codebook), checks.within(2.0**-18), 0))
    cores = [core for core in ("torch", "avx2", "avx512") if switches.runs_here(ASSIGN, core)]
    for core in cores:
        found.append(
            Provider(
                f"spintok exact ({core})",
                lambda: _ours(z, codebook, metric),
                checks.exact,
                0,
                lambda core=core: switches.core(ASSIGN, core),
            )
        )
    return found


class _Checks:
    """Agreement with float64 on a sample of rows."""

    def __init__(self, z: Tensor, codebook: Tensor, metric: str) -> None:
        rng = torch.Generator().manual_seed(1)
        self.rows = torch.randint(len(z), (SAMPLE,), generator=rng).to(z.device)
        sample, c = z[self.rows].double(), codebook.double()
        self.scores = sample @ c.t()
        if metric == "l2":
            self.scores -= 0.5 * c.square().sum(1)
        self.size = sample.norm(dim=1) * c.norm(dim=1).max()

    def _lost(self, ids: Any) -> tuple[Tensor, int]:
        found = torch.as_tensor(ids, device=self.rows.device).flatten()[self.rows].long()
        best, true = self.scores.max(1)
        lost = best - self.scores.gather(1, found.clamp(min=0)[:, None]).squeeze(1)
        return (lost / self.size).where(found >= 0, torch.inf), int((found != true).sum())

    def exact(self, ids: Any) -> str:
        lost, _ = self._lost(ids)
        # This sample's own float64 sums run in another order.
        wrong = int((lost > 1e-14).sum())
        return f"{wrong} of {SAMPLE} ids differ" if wrong else ""

    def within(self, tolerance: float) -> Callable[[Any], str]:
        """Near ties may go either way: what the chosen code loses, relative to |z| max|c|, is bounded."""

        def check(ids: Any) -> str:
            lost, differ = self._lost(ids)
            worst = float(lost.max())
            return f"{differ} of {SAMPLE} ids differ, by up to {worst:.1e}" if worst > tolerance else ""

        return check


def _ours(z: Tensor, codebook: Tensor, metric: Any) -> Callable[[], Tensor]:
    prepared = prepare(codebook, metric)
    return lambda: assign(z, prepared)


def _faiss(z: Tensor, codebook: Tensor, metric: str) -> Callable[[], Any]:
    try:
        import faiss
    except ImportError as error:
        raise SkipError("not installed (pip install faiss-cpu, or faiss-gpu)") from error
    index = faiss.IndexFlatIP(z.shape[1]) if metric == "dot" else faiss.IndexFlatL2(z.shape[1])
    if not z.is_cuda:
        faiss.omp_set_num_threads(torch.get_num_threads())
        rows = z.numpy()
        index.add(codebook.numpy())
        return lambda: index.search(rows, 1)[1]
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        raise SkipError("this build of faiss has no GPU")
    import faiss.contrib.torch_utils

    index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(codebook)
    return lambda: index.search(z, 1)[1]


def _sklearn(z: Tensor, codebook: Tensor) -> Callable[[], Any]:
    try:
        from sklearn.metrics import pairwise_distances_argmin
    except ImportError as error:
        raise SkipError("not installed") from error
    rows, centres = z.numpy(), codebook.numpy()
    return lambda: pairwise_distances_argmin(rows, centres)


def _flash(z: Tensor, codebook: Tensor) -> Callable[[], Any]:
    try:
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton
    except ImportError as error:
        raise SkipError("not installed (pip install flash-kmeans)") from error
    return lambda: euclid_assign_triton(z[None], codebook[None], z.square().sum(1)[None])
