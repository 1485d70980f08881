"""The K-means stage: a recipe and speech in, a tokenizer out."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from spintok.codebook import Codebook, CodebookConfig
from spintok.manifest import Utterance
from spintok.mfcc import Mfcc
from spintok.tokenizer import Tokenizer, load
from spintok.train.features import FeatureFile
from spintok.train.kmeans import fit
from spintok.train.recipe import KMeansRecipe

__all__ = ["run"]


def run(recipe: KMeansRecipe, utterances: Sequence[Utterance], console: Console) -> Tokenizer:
    """Extract the features once to a temporary file, cluster them, and return the tokenizer."""
    encoder = Mfcc() if recipe.encoder == "mfcc" else load(recipe.encoder).encoder

    def extract(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, counts = encoder(waveforms, lengths, layer=recipe.layer)
        return features, counts

    with tempfile.TemporaryDirectory(prefix="spintok-") as folder, Progress(console=console) as bar:
        file = FeatureFile(Path(folder, "features.f32"), encoder.num_features)
        reading = bar.add_task("features", total=len(utterances))
        file.write(extract, utterances, recipe.share, recipe.kmeans.seed, lambda n: bar.advance(reading, n))
        clustering = bar.add_task("K-means", total=recipe.kmeans.restarts * recipe.kmeans.iterations)

        def heard(start: int, iteration: int, distance: float) -> None:
            done = start * recipe.kmeans.iterations + iteration
            bar.update(clustering, completed=done, description=f"K-means, mean squared distance {distance:.4f}")

        result = fit(file.chunks, recipe.kmeans, heard)
    width = encoder.num_features
    codebook = Codebook(CodebookConfig("primary", recipe.kmeans.size, width, width, "l2", projection=False))
    with torch.no_grad():
        codebook.codewords.copy_(result.codewords)
    return Tokenizer(encoder, [codebook], layer=recipe.layer, name=recipe.name)
