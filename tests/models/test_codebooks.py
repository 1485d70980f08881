import pytest
import torch

from spintok.models.codebook import Codebook, CodebookConfig, Codebooks


def book(name: str, size: int = 3) -> Codebook:
    return Codebook(CodebookConfig(name, size, 4, 2, "dot", projection=True))


def test_order_and_names_in_the_state_dict() -> None:
    books = Codebooks([book("primary", 3), book("auxiliary", 5)])
    assert books.codebook_names == ["primary", "auxiliary"]
    assert books.primary_codebook is books["primary"]
    assert [one.config.size for one in books.values()] == [3, 5]
    parts = ("codewords", "projection.weight", "projection.bias")
    assert set(books.state_dict()) == {f"{name}.{part}" for name in ("primary", "auxiliary") for part in parts}
    assert books["auxiliary"].codes(torch.ones(7, 4)).shape == (7,)


@pytest.mark.parametrize("names", [[], ["a", "a"], [""], ["a.b"], ["keys"], ["training"], ["primary_codebook"]])
def test_impossible_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="codebook"):
        Codebooks([book(name) for name in names])
