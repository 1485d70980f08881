"""CKA and SVCCA against their definitions on whole matrices, scikit-learn, and invariances."""

import numpy as np
import pytest

from spintok.evaluate.similarity import Moments

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 6)) * [5, 3, 2, 1, 0.5, 0.2] + 4
Y = X[:, :4] @ RNG.standard_normal((4, 5)) + RNG.standard_normal((300, 5))


def test_parts_add_up() -> None:
    whole, parts = Moments.of(X, Y), Moments.of(X[:100], Y[:100]) + Moments.of(X[100:], Y[100:])
    assert parts.cka() == pytest.approx(whole.cka())
    assert parts.svcca() == pytest.approx(whole.svcca())


def test_cka_against_gram_matrices() -> None:
    """HSIC of centred linear kernels, the definition by N x N matrices."""
    center = np.eye(300) - 1 / 300
    k, m = center @ X @ X.T @ center, center @ Y @ Y.T @ center
    expected = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert Moments.of(X, Y).cka() == pytest.approx(expected)


def test_svcca_against_principal_components_and_least_squares() -> None:
    def components(z: np.ndarray, variance: float) -> np.ndarray:
        z = z - z.mean(0)
        u, s, _ = np.linalg.svd(z, full_matrices=False)
        return u[:, : int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance)) + 1]

    for variance in (0.8, 0.99):
        left, right = components(X, variance), components(Y, variance)
        expected = np.linalg.svd(left.T @ right, compute_uv=False).mean()
        assert Moments.of(X, Y).svcca(variance) == pytest.approx(expected)


def test_invariances() -> None:
    turn, _ = np.linalg.qr(RNG.standard_normal((6, 6)))
    moved = 3 * X @ turn - 7
    assert Moments.of(X, moved).cka() == pytest.approx(1.0)
    assert Moments.of(X, moved).svcca() == pytest.approx(1.0)
    skewed = X @ RNG.standard_normal((6, 6))
    assert Moments.of(X, skewed).svcca(1.0) == pytest.approx(1.0)
    assert Moments.of(X, skewed).cka() < 0.99
    noise = Moments.of(X, RNG.standard_normal((300, 5)))
    assert noise.cka() < 0.1
    assert noise.svcca() < 0.3


def test_degenerate_features() -> None:
    constant = Moments.of(X, np.ones((300, 2)))
    assert (constant.cka(), constant.svcca()) == (0.0, 0.0)
    twice = Moments.of(X, np.concatenate([X, X], axis=1))
    assert twice.svcca(1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 2 frames"):
        Moments.of(X[:1], Y[:1]).cka()
    with pytest.raises(ValueError, match="same frames"):
        Moments.of(X, Y[1:])
    with pytest.raises(ValueError, match="variance must lie"):
        Moments.of(X, Y).svcca(0)
