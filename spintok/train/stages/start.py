"""Open what a recipe starts from: encoders and tokenizers by name, folder or checkpoint."""

from pathlib import Path

from spintok.frames import GRID
from spintok.hub import registry
from spintok.loading import find_source, load
from spintok.models.base import FeatureExtractor
from spintok.models.encoder import Encoder
from spintok.models.importers import load_extractor
from spintok.models.mfcc import Mfcc
from spintok.serialization import is_tokenizer
from spintok.tokenizer import Tokenizer
from spintok.train.recipe import RecipeError, TrainedRecipe
from spintok.train.trainable import TrainableEncoder

__all__ = ["open_encoder", "open_start", "open_tokenizer", "trainable"]


def open_encoder(source: str, *, final_norm: bool = False) -> FeatureExtractor:
    """The encoder of a tokenizer (name or folder) or of another library's checkpoint; "mfcc" is the MFCC front end.

    ``final_norm`` is for checkpoints (``spintok.models.importers.load_encoder``).

    Raises:
        ValueError: there is no such encoder, it is damaged, or it has no final norm to add.
    """
    source = str(find_source(source))
    if final_norm and (source == "mfcc" or source in registry.known() or is_tokenizer(Path(source))):
        raise ValueError(f"final_norm is for checkpoints of other libraries, not for {source}")
    if source == "mfcc":
        return Mfcc()
    if source in registry.known() or is_tokenizer(Path(source)):
        return load(source).encoder
    if Path(source).exists() or ":" in source:
        return load_extractor(source, final_norm=final_norm)
    raise ValueError(
        f"{source}: no such tokenizer or checkpoint: give the output folder of a training run, a checkpoint of another "
        "library, ORG/NAME on the Hugging Face Hub, or a name such as torchaudio:HUBERT_BASE"
    )


def open_start(recipe: TrainedRecipe) -> Encoder:
    """The encoder that the recipe starts from. Raises ``ValueError``."""
    if recipe.start is None:
        raise RecipeError("the field start is missing: name the output folder of the previous stage, or give --init")
    encoder = open_encoder(recipe.start)
    if not isinstance(encoder, Encoder):
        raise RecipeError(
            f"start: {recipe.start!r} has no layers to train in spintok (its encoder is {encoder.type_name}): give "
            "HuBERT, wav2vec 2.0, WavLM or data2vec-audio, or use a K-means recipe, which takes it as it is"
        )
    if encoder.config.feed_forward_output:
        raise RecipeError(
            f"start: {recipe.start!r} gives the inside of its layers (SpidR, DinoSR), which spintok does not train; a "
            "K-means recipe takes it as it is"
        )
    if encoder.grid != GRID:
        raise RecipeError(
            f"start: {recipe.start!r} gives {encoder.grid.rate} frames a second; encoders are trained at {GRID.rate}. "
            "A K-means recipe takes it as it is"
        )
    return encoder


def open_tokenizer(field: str, source: str) -> Tokenizer:
    """The tokenizer that the recipe names in ``field``. Raises ``RecipeError``."""
    try:
        return load(source)
    except ValueError as error:
        raise RecipeError(f"{field}: {error}") from None


def trainable(
    recipe: TrainedRecipe,
    encoder: Encoder,
    *,
    layer: int | None,
    train_layers: int | None = None,
    train_front_end: bool = True,
) -> TrainableEncoder:
    """``encoder`` with the layers to train as the recipe says. Raises ``RecipeError``."""
    try:
        made = TrainableEncoder(encoder, layer=layer, train_layers=train_layers, train_front_end=train_front_end)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    made.encoder.recompute = recipe.loop.recompute
    return made
