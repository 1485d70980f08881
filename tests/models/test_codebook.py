import numpy as np
import pytest
import torch

from spintok.models.codebook import Codebook, CodebookConfig


def make(metric: str, projection: bool) -> Codebook:
    torch.manual_seed(0)
    return Codebook(CodebookConfig("primary", 31, 12, 8 if projection else 12, metric, projection))


@pytest.mark.parametrize("projection", [False, True])
def test_dot_codes_are_the_highest_cosine(projection) -> None:
    book, features = make("dot", projection), torch.randn(200, 12)
    z = features.double()
    if book.projection is not None:
        z = z @ book.projection.weight.double().T + book.projection.bias.double()
    codewords = book.codewords.double()
    cosine = torch.nn.functional.cosine_similarity(z[:, None], codewords[None], dim=2)
    assert book.codes(features).tolist() == cosine.argmax(1).tolist()
    torch.testing.assert_close(book.embed(features).norm(dim=1), torch.ones(200))
    torch.testing.assert_close(book.normalized_codewords().norm(dim=1), torch.ones(31))


def test_l2_codes_are_the_nearest() -> None:
    book, features = make("l2", False), torch.randn(200, 12)
    nearest = torch.cdist(features.double(), book.codewords.double()).argmin(1)
    assert book.codes(features).tolist() == nearest.tolist()


def test_codes_carry_no_gradient_and_take_features_of_inference_mode() -> None:
    book = make("dot", True)
    with torch.inference_mode():
        features = torch.randn(5, 12)
    assert book.codes(features).shape == (5,)
    assert not book.codes(torch.randn(5, 12, requires_grad=True)).requires_grad


def test_no_frames_have_no_codes() -> None:
    assert make("dot", True).codes(torch.zeros(0, 12)).shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"metric": "cos"}, "metric"), ({"size": 0}, "at least 1"), ({"width": 5}, "width must equal features")],
)
def test_bad_configurations_are_refused(change, message) -> None:
    good = {"name": "x", "size": 2, "features": 3, "width": 3, "metric": "l2", "projection": False}
    with pytest.raises(ValueError, match=message):
        CodebookConfig(**{**good, **change})


def test_agrees_with_scikit_learns_kmeans_predict() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    features = np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)
    kmeans = cluster.KMeans(31, n_init=1, max_iter=3, random_state=0).fit(features)
    book = make("l2", False)
    with torch.no_grad():
        book.codewords.copy_(torch.from_numpy(kmeans.cluster_centers_))
    assert book.codes(torch.from_numpy(features)).tolist() == kmeans.predict(features).tolist()
