"""The training stages; each builds itself from a recipe and a corpus."""

import torch

from spintok.train.distributed import Distributed
from spintok.train.recipe import CtcRecipe, PretrainRecipe, SpinRecipe
from spintok.train.stages import ctc, masked, spin
from spintok.train.stages.base import Corpus, Stage

__all__ = ["build"]


def build(recipe: PretrainRecipe | CtcRecipe | SpinRecipe, corpus: Corpus, distributed: Distributed) -> Stage:
    """Open what the recipe names, check that it fits together, and initialize the model.

    Raises:
        ValueError: something is missing or does not fit; the message names the field of the recipe.
    """
    # Random initial weights depend on the seed only.
    torch.manual_seed(recipe.loop.seed)
    match recipe:
        case PretrainRecipe():
            return masked.build(recipe, corpus, distributed)
        case CtcRecipe():
            return ctc.build(recipe, corpus, distributed)
        case SpinRecipe():
            return spin.build(recipe, corpus, distributed)
