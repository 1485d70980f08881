"""The K-means stage clusters the features that the tokenizer computes."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from reference_features import LARGE, transformers_model
from small_models import save_tiny
from voices import SPEECH

from spintok.data.manifest import Utterance
from spintok.progress import no_progress
from spintok.train.clustering import KMeansConfig
from spintok.train.recipe import KMeansRecipe
from spintok.train.stages.kmeans import run


def test_k_means_clusters_the_features_that_encode_meets(tmp_path: Path) -> None:
    """Also of a file that is longer than a window: every codeword is the mean of the frames that get its code."""
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.uniform(0.02, 0.5, 8), 16_000 * 5)
    soundfile.write(tmp_path / "long.wav", loudness * rng.standard_normal(len(loudness)).clip(-1, 1), 16_000)
    save_tiny(tmp_path / "start")
    recipe = KMeansRecipe(
        name="k", encoder=str(tmp_path / "start"), layer=3, kmeans=KMeansConfig(5, 500, 0.0, sample=2000)
    )
    tokenizer = run(recipe, [Utterance("long", tmp_path / "long.wav")], tmp_path, no_progress)
    recording = tokenizer.record(tmp_path / "long.wav")
    assert recording.waveform is None
    features = torch.cat([batch.features[0] for batch in tokenizer.iter_features([recording])])
    codes = torch.from_numpy(tokenizer.encode(tmp_path / "long.wav").codes.copy())
    for code, codeword in enumerate(tokenizer.codebook().codewords):
        assert torch.allclose(features[codes == code].mean(0), codeword, atol=1e-5), code


def test_the_final_norm_is_a_choice(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    transformers_model("hubert", **LARGE).save_pretrained(tmp_path / "large")
    audio = [Utterance("a", SPEECH / "eve_bus.flac")]
    clustering = KMeansConfig(5, sample=50)
    normed, raw = (
        run(
            KMeansRecipe("k", str(tmp_path / "large"), clustering, layer=3, final_norm=norm),
            audio,
            tmp_path,
            no_progress,
        )
        for norm in (True, False)
    )
    assert normed.encoder.to_config()["final_norm"]
    assert normed.fingerprint != raw.fingerprint
    for encoder, layer, message in (
        (str(tmp_path / "large"), 2, "follows layer 3"),
        ("mfcc", None, "is for checkpoints"),
    ):
        with pytest.raises(ValueError, match=message):
            run(KMeansRecipe("k", encoder, clustering, layer=layer, final_norm=True), audio, tmp_path, no_progress)
