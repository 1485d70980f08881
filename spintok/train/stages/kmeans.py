"""The K-means stage: a recipe and speech in, a tokenizer out."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.tokenizer import Tokenizer
from spintok.train.clustering import fit
from spintok.train.features import FeatureFile
from spintok.train.recipe import KMeansRecipe, RecipeError
from spintok.train.source import open_encoder

__all__ = ["describe", "run"]


def run(
    recipe: KMeansRecipe, utterances: Sequence[Utterance], console: Console, device: torch.device | None = None
) -> Tokenizer:
    """Extract the features once to a temporary file, cluster them, and return the tokenizer.

    Raises ``ValueError`` when there are fewer frames than codewords, naming the field.
    """
    encoder = _open(recipe)
    featurizer = Featurizer(encoder, layer=recipe.layer, name=recipe.name).to(device or torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="spintok-") as folder, Progress(console=console) as bar:
        file = FeatureFile(Path(folder, "features.f32"), encoder.num_features)
        reading = bar.add_task("features", total=len(utterances))
        rows = file.write(featurizer, utterances, recipe.share, recipe.kmeans.seed, lambda n: bar.advance(reading, n))
        if rows < recipe.kmeans.size:
            raise RecipeError(
                f"kmeans.size: {recipe.kmeans.size} codewords are more than the {rows} frames of the "
                f"{len(utterances)} utterances; give more speech, or a smaller size"
            )
        clustering = bar.add_task("K-means", total=recipe.kmeans.restarts * recipe.kmeans.iterations)

        def heard(start: int, iteration: int, distance: float) -> None:
            done = start * recipe.kmeans.iterations + iteration
            bar.update(clustering, completed=done, description=f"K-means, mean squared distance {distance:.4f}")

        result = fit(file.chunks, recipe.kmeans, heard)
    width = encoder.num_features
    codebook = Codebook(CodebookConfig("primary", recipe.kmeans.size, width, width, "l2", projection=False))
    with torch.no_grad():
        codebook.codewords.copy_(result.codewords)
    return Tokenizer(encoder.cpu(), [codebook], layer=recipe.layer, name=recipe.name, window=featurizer.window)


def describe(recipe: KMeansRecipe, utterances: Sequence[Utterance]) -> str:
    """Some lines for people: what a run would do."""
    encoder = _open(recipe)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    layer = "" if recipe.layer is None else f", layer {recipe.layer}"
    return (
        f"encoder     {recipe.encoder}{layer}: {encoder.num_features} features, {weights:,} parameters\n"
        f"codebook    primary: {recipe.kmeans.size} codewords of {encoder.num_features}\n"
        f"speech      {len(utterances)} utterances, {recipe.share:.0%} of their frames\n"
        f"steps       at most {recipe.kmeans.restarts} x {recipe.kmeans.iterations} passes over the features"
    )


def _open(recipe: KMeansRecipe) -> FeatureExtractor:
    encoder = open_encoder(recipe.encoder)
    if not encoder.has_layers:
        if recipe.layer is not None:
            raise RecipeError(f"layer: {recipe.encoder} has no layers; leave it out")
        return encoder
    if recipe.layer is None or not 1 <= recipe.layer <= encoder.num_layers:
        raise RecipeError(f"layer: {recipe.encoder} has the layers 1 ... {encoder.num_layers}, got {recipe.layer}")
    return encoder.truncated(recipe.layer)
