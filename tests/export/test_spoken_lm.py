"""The recipe on tokens with a grammar: the model must find what an n-gram cannot."""

import argparse
import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scripts import run_script

from spintok.corpus.token_formats import Record
from spintok.export.packed.dataset import export_packed
from spintok.export.packed.reader import Windows
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens
from tests.export.token_folders import write_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
RECIPE = Path(__file__).parents[2] / "recipes/spoken_lm.py"


def grammar(seed, length):
    """Each code follows from the two before it, but for one in ten, which is free: a bigram sees little of that."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(0).integers(12, size=(12, 12))
    codes = [0, 1]
    while len(codes) < length:
        codes.append(int(rng.integers(12)) if rng.random() < 0.1 else int(table[codes[-2], codes[-1]]))
    return np.array(codes)


@pytest.mark.slow
def test_the_model_beats_both_baselines(tmp_path):
    records = [
        Record(f"u{i}", f"u{i}.wav", {"primary": Tokens(np.repeat(grammar(i, 60), 2), 12, 40_000)}) for i in range(200)
    ]
    folder = write_folder(tmp_path / "tokens", records)
    options = ["--steps", "80", "--window", "64", "--width", "48", "--layers", "2", "--batch", "8"]
    shown = run_script("recipes/spoken_lm.py", folder, tmp_path / "work", *options)
    report = json.loads((tmp_path / "work/report.json").read_text(encoding="utf-8"))
    perplexity = {name: report[name]["perplexity"] for name in ("unigram", "bigram", "language model")}
    assert perplexity["language model"] < 0.9 * perplexity["bigram"] < perplexity["unigram"]
    rate = report["language model"]["bits_per_second"]
    assert rate["low"] < rate["value"] < rate["high"]
    assert report["pairs_0.02"]["accuracy"]["value"] > 90
    assert report["pairs_0.02"]["bits_per_token"]["low"] > 0.2
    assert "real above shuffled" in shown


def test_documents_of_a_window_do_not_see_each_other_in_transformers(folder, records, tmp_path):
    export_packed([folder], tmp_path / "out", window=48)
    item = {name: torch.from_numpy(array)[None] for name, array in Windows(tmp_path / "out/tokens")[0].items()}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        together = model(**item, use_cache=False).logits[0]
        starts = [*np.flatnonzero(item["position_ids"][0].numpy() == 0).tolist(), 48]
        assert len(starts) > 2
        for start, end in pairwise(starts):
            alone = model(input_ids=item["input_ids"][:, start:end]).logits[0]
            # float32 in another order of summation.
            torch.testing.assert_close(together[start:end], alone, rtol=1e-4, atol=1e-5)


def test_words_against_non_words(tmp_path):
    """Three pairs of recordings: one, the same the other way round, and one of a recording with itself."""
    spec = importlib.util.spec_from_file_location("spoken_lm", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    speech = Path(__file__).parents[1] / "speech"
    rows = []
    for number, names in enumerate((("eve_bus", "fred_yes"), ("fred_yes", "eve_bus"), ("fred_yes", "fred_yes"))):
        for kind, name in zip(("real", "false"), names, strict=True):
            path = str(speech / f"{name}.flac")
            rows.append({"id": f"{number}-{kind}", "path": path, "pair": number, "kind": kind, "speaker": "a"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    vocabulary = Vocabulary("mfcc-kmeans-100", "", {"primary": 100})
    config = transformers.LlamaConfig(
        vocab_size=vocabulary.size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config).eval()
    arguments = argparse.Namespace(tokenizer="mfcc-kmeans-100", pairs=tmp_path, window=64)
    found = recipe.words(arguments, model, vocabulary)
    half = {"accuracy": {"value": 50.0}, "ties": pytest.approx(1 / 3)}
    assert found == {"pairs": 3, "per_token": half, "in_total": half}
