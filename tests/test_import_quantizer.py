"""An encoder and a K-means of other people as a tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from reference_features import transformers_features, transformers_model
from small_models import save_tiny

import spintok
from spintok.loading import import_quantizer

joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")
pytest.importorskip("transformers")

SPEECH = torch.randn(48_000, generator=torch.Generator().manual_seed(0)) * 0.1


def test_the_codes_are_those_of_transformers_and_scikit_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = transformers_model("hubert")
    model.save_pretrained(tmp_path / "encoder")
    features = transformers_features(model, SPEECH, False)[2].float().numpy()
    kmeans = cluster.KMeans(20, n_init=1, random_state=0).fit(features)
    joblib.dump(kmeans, tmp_path / "km.bin")
    arguments = (tmp_path / "encoder", tmp_path / "made", "--centroids", tmp_path / "km.bin", "--layer", 2)
    code, out, error = run(capsys, "import", *arguments)
    assert code == 0, error
    assert "tokenizer encoder-L2-km20, 20 codewords over layer 2, 50 frames a second" in out
    tokenizer = spintok.load(tmp_path / "made")
    assert (tokenizer.layer, tokenizer.encoder.num_layers, tokenizer.codebook_size) == (2, 2, 20)
    np.testing.assert_array_equal(tokenizer.encode(SPEECH, 16_000).codes, kmeans.predict(features))
    code, _, error = run(capsys, "import", *arguments)
    assert code == 2
    assert "is not an empty folder" in error


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    tiny = save_tiny(tmp_path / "tiny")
    np.save(tmp_path / "km.npy", np.eye(16, dtype=np.float32))
    np.save(tmp_path / "wide.npy", np.eye(17, dtype=np.float32))
    # The encoder of a tokenizer does as well.
    made = import_quantizer(tiny, tmp_path / "km.npy", layer=1, name="mine")
    assert (made.name, made.codebook_size, made.encoder.num_layers) == ("mine", 16, 1)
    with pytest.raises(ValueError, match="belong to features of width 17, but those of .* have 16") as caught:
        import_quantizer(tiny, tmp_path / "wide.npy", layer=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"has layers 0 \.\.\. 3, got layer 4"):
        import_quantizer(tiny, tmp_path / "km.npy", layer=4)
