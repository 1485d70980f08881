"""The K-means stage: cluster the features of an encoder into a codebook."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spintok._files import digest
from spintok.augment import utterance_rng
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.progress import Progress
from spintok.serialization import fingerprint
from spintok.tokenizer import Tokenizer
from spintok.train.batching.array_file import ArrayFile
from spintok.train.clustering import fit
from spintok.train.clustering_state import StateFile
from spintok.train.recipe import KMeansRecipe, RecipeError
from spintok.train.stages.start import open_encoder

__all__ = ["clean", "describe", "run"]


def run(
    recipe: KMeansRecipe,
    utterances: Sequence[Utterance],
    folder: Path,
    progress: Progress,
    device: torch.device | None = None,
) -> Tokenizer:
    """Extract the features into ``folder``, cluster them, and return the tokenizer.

    A process that was killed is gone on from. ``clean`` deletes what is then in the folder.

    Raises:
        ValueError: there are fewer frames than codewords; the message names the recipe's field.
    """
    device = device or torch.device("cpu")
    encoder = _open(recipe)
    name = f"kmeans-{_digest(recipe, utterances, encoder)}"
    clean(folder, but=name)
    featurizer = Featurizer(encoder, layer=recipe.layer, name=recipe.name).to(device)
    width = encoder.num_features

    def features_of(utterance: Utterance) -> Iterator[NDArray[np.generic]]:
        rng = utterance_rng(recipe.kmeans.seed, 0, utterance.key)
        for batch in featurizer.iter_features([featurizer.record(utterance.path)]):
            features = batch.features[0]
            if recipe.share < 1:
                drawn = rng.random(len(features)) < recipe.share
                features = features[torch.from_numpy(drawn).to(device)]
            yield features.float().cpu().numpy()

    def features_after(count: int) -> Iterator[Iterator[NDArray[np.generic]]]:
        for done, utterance in enumerate(utterances[count:], start=count + 1):
            yield features_of(utterance)
            progress("features", done, len(utterances))

    def report(start: int, iteration: int, distance: float) -> None:
        done = start * recipe.kmeans.iterations + iteration
        progress("K-means", done, recipe.kmeans.restarts * recipe.kmeans.iterations, f"mean distance² {distance:.4f}")

    features = ArrayFile.write(folder / f"{name}.f32", features_after).rows
    if len(features) < recipe.kmeans.size:
        raise RecipeError(
            f"kmeans.size: {recipe.kmeans.size} codewords are more than the {len(features)} frames of the "
            f"{len(utterances)} utterances; give more speech, or a smaller size"
        )
    state = StateFile(folder / f"{name}.safetensors")
    result = fit(features.astype(np.float32, copy=False), recipe.kmeans, report, device, state)
    codebook = Codebook(CodebookConfig("primary", recipe.kmeans.size, width, width, "l2", projection=False))
    with torch.no_grad():
        codebook.codewords.copy_(result.codewords)
    return Tokenizer(encoder.cpu(), [codebook], layer=recipe.layer, name=recipe.name, window=featurizer.window)


def clean(folder: Path, but: str = "") -> None:
    """Delete what ``run`` keeps in ``folder``, except what is named ``but``: of runs with another recipe or speech."""
    for path in folder.glob("kmeans-*"):
        if not but or not path.name.startswith(but):
            path.unlink()


def describe(recipe: KMeansRecipe, utterances: Sequence[Utterance]) -> str:
    """A description of what ``run`` would do."""
    encoder = _open(recipe)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    layer = "" if recipe.layer is None else f", layer {recipe.layer}"
    return (
        f"encoder     {recipe.encoder}{layer}: {encoder.num_features} features, {weights:,} parameters\n"
        f"codebook    primary: {recipe.kmeans.size} codewords of {encoder.num_features}\n"
        f"speech      {len(utterances)} utterances, {recipe.share:.0%} of their frames\n"
        f"steps       at most {recipe.kmeans.restarts} x {recipe.kmeans.iterations} passes over the features"
    )


def _digest(recipe: KMeansRecipe, utterances: Sequence[Utterance], encoder: FeatureExtractor) -> str:
    """Twelve hexadecimal digits of a hash of everything that the features and the codewords depend on."""
    listed = digest((u.key, str(u.path)) for u in utterances)
    about = {"recipe": asdict(recipe), "encoder": encoder.identity(), "utterances": listed}
    return fingerprint(about, encoder)[:12]


def _open(recipe: KMeansRecipe) -> FeatureExtractor:
    encoder = open_encoder(recipe.encoder, final_norm=recipe.final_norm)
    if not encoder.has_layers:
        if recipe.layer is not None:
            raise RecipeError(f"layer: {recipe.encoder} has no layers; omit the field")
        return encoder
    if recipe.layer is None or not 1 <= recipe.layer <= encoder.num_layers:
        raise RecipeError(f"layer: {recipe.encoder} has the layers 1 ... {encoder.num_layers}, got {recipe.layer}")
    if recipe.final_norm and recipe.layer != encoder.num_layers:
        raise RecipeError(f"final_norm: it follows layer {encoder.num_layers}, the last one, not layer {recipe.layer}")
    return encoder.truncated(recipe.layer)
