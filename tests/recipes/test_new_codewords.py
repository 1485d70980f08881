"""The script that gives a tokenizer new codewords."""

import torch
from scripts import run_script
from small_models import tiny_encoder

from spintok.loading import load
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.tokenizer import Tokenizer


def test_codewords_are_centres_of_the_embeddings_and_all_are_used(speech, tmp_path) -> None:
    torch.manual_seed(0)
    books = [
        Codebook(CodebookConfig(name, size, 16, 8, "dot", projection=True)) for name, size in (("a", 5), ("b", 12))
    ]
    Tokenizer(tiny_encoder(), books, layer=3, name="old").save(tmp_path / "old")
    run_script("recipes/new_codewords.py", tmp_path / "old", speech, tmp_path / "new")
    old, new = load(tmp_path / "old"), load(tmp_path / "new")
    assert new.codebook_names == ["a", "b"]
    for name in ("a", "b"):
        assert torch.equal(new.codebook(name).projection.weight, old.codebook(name).projection.weight)
        size = new.size_of(name)
        codes = [new.encode(path, codebook=name).codes for path in sorted(speech.glob("*.flac"))]
        used = {code for some in codes for code in some.tolist()}
        assert len(used) > 0.7 * size
        torch.testing.assert_close(new.codebook(name).codewords.norm(dim=1), torch.ones(size))
