"""Codebook assignment, next to what a user would write or install instead."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from spintok_kernels import assign, prepare
from spintok_kernels.assign.cpu import ASSIGN
from torch import Tensor

from . import switches
from .harness import Agreement, Case, Provider, Settings, SkipError

__all__ = ["cases"]

# Products in float64 that the check of a case may take; beyond, a sample of the rows is checked.
CHECKED_PRODUCTS = {"cpu": 1e10, "cuda": 1e13}


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every shape twice: "dot" as in Spin (random unit rows), "l2" as in K-means (features with an offset)."""
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

    def graphed() -> Callable[[], Tensor]:
        torch._dynamo.reset()
        return torch.compile(eager, dynamic=False, mode="reduce-overhead")

    found = [
        Provider("torch float32", lambda: eager, checks.within(2.0**-20), 1.1 * scores, float32),
        Provider("torch.compile float32", compiled, checks.within(2.0**-20), 1.1 * scores, float32),
        Provider("faiss", lambda: _faiss(z, codebook, metric), checks.within(2.0**-18)),
    ]
    if cuda:
        near = checks.within(2.0**-8)
        found += [
            Provider("torch TF32", lambda: eager, near, 1.1 * scores, tf32, "tf32"),
            Provider("torch.compile TF32", compiled, near, 1.1 * scores, tf32, "tf32"),
            Provider("torch.compile TF32 reduce-overhead", graphed, near, 1.1 * scores, tf32, "tf32"),
            Provider("torch autocast float16", lambda: lambda: eager(torch.float16), near, scores, precision="float16"),
            Provider("cuVS", lambda: _cuvs(z, codebook, metric), near, precision="tf32"),
        ]
        if metric == "l2":
            found.append(Provider("flash-kmeans", lambda: _flash(z, codebook), near, precision="float16"))
        found.append(
            Provider("spintok, prepared", lambda: _ours(z, codebook, metric), checks.exact, precision="float16")
        )
        found.append(
            Provider("spintok", lambda: lambda: assign(z, codebook, metric=metric), checks.exact, precision="float16")
        )
        return found
    if metric == "l2":
        found.append(Provider("scikit-learn", lambda: _sklearn(z, codebook), checks.within(2.0**-18)))
    for core in ("torch", "avx2", "avx512"):
        if switches.runs_here(ASSIGN, core):
            use = partial(switches.core, ASSIGN, core)
            found.append(Provider(f"spintok ({core})", lambda: _ours(z, codebook, metric), checks.exact, context=use))
    return found


class _Checks:
    """Compares ids with the argmax of float64 scores, of all rows if that is affordable."""

    def __init__(self, z: Tensor, codebook: Tensor, metric: str) -> None:
        n, k, d = len(z), *codebook.shape
        rows = min(n, max(512, int(CHECKED_PRODUCTS[z.device.type] / (k * d))))
        rng = torch.Generator().manual_seed(1)
        self.rows = torch.arange(n) if rows == n else torch.randperm(n, generator=rng)[:rows].sort().values
        self.rows = self.rows.to(z.device)
        self.z, self.codebook = z, codebook.double()
        self.bias = 0.5 * self.codebook.square().sum(1) if metric == "l2" else None
        self.largest = self.codebook.norm(dim=1).max()

    def _compare(self, ids: Any) -> tuple[int, float]:
        """Return the number of rows with a worse id and the largest loss of score, over |z| max|c|."""
        found = torch.as_tensor(ids, device=self.rows.device).flatten()[self.rows].long()
        wrong, worst = 0, 0.0
        step = max(1, (1 << 24) // len(self.codebook))
        for start in range(0, len(found), step):
            part = self.z[self.rows[start : start + step]].double()
            scores = part @ self.codebook.t()
            if self.bias is not None:
                scores -= self.bias
            best = scores.amax(1)
            mine = found[start : start + step]
            lost = best - scores.gather(1, mine.clamp(min=0)[:, None]).squeeze(1)
            lost = (lost / (part.norm(dim=1) * self.largest)).where(mine >= 0, torch.inf)
            # These float64 sums have another order than the definition, so equal scores may differ in rounding.
            wrong += int((lost > 1e-14).sum())
            worst = max(worst, float(lost.max()))
        return wrong, worst

    def exact(self, ids: Any) -> Agreement:
        """Require every id to be the best one."""
        return self._agreement(ids, 1e-14)

    def within(self, tolerance: float) -> Callable[[Any], Agreement]:
        """Tolerate near ties: the loss of score of the chosen code, over |z| max|c|, must stay within `tolerance`."""
        return lambda ids: self._agreement(ids, tolerance)

    def _agreement(self, ids: Any, tolerance: float) -> Agreement:
        wrong, worst = self._compare(ids)
        problem = f"{wrong} of {len(self.rows)} ids differ, by up to {worst:.1e}" if worst > tolerance else ""
        return Agreement(wrong, len(self.rows), worst, problem)


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


def _cuvs(z: Tensor, codebook: Tensor, metric: str) -> Callable[[], Any]:
    try:
        from cuvs.neighbors import brute_force
    except ImportError as error:
        raise SkipError("not installed (pip install cuvs-cu13)") from error
    index = brute_force.build(codebook, metric="inner_product" if metric == "dot" else "sqeuclidean")
    return lambda: torch.as_tensor(brute_force.search(index, z, 1)[1], device=z.device)
