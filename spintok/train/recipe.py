"""Recipes: one TOML file says how one tokenizer is made."""

import tomllib
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from spintok.train.kmeans import KMeansConfig

__all__ = ["KMeansRecipe", "RecipeError", "read_recipe"]

Config = TypeVar("Config")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the field and the cause."""


@dataclass(frozen=True)
class KMeansRecipe:
    """K-means over the features of an encoder: HuBERT's teacher, and the thing for Spin to beat.

    Attributes:
        name: of the tokenizer that comes out.
        encoder: "mfcc", or a tokenizer's name or folder whose encoder is used.
        layer: the encoder layer whose features are clustered; left out for MFCC.
        share: the share of each utterance's frames that is used, drawn by ``kmeans.seed``.
        kmeans: the clustering itself.
    """

    name: str
    encoder: str
    kmeans: KMeansConfig
    layer: int | None = None
    share: float = 1.0


def read_recipe(path: str | PathLike[str]) -> KMeansRecipe:
    """Read and check a recipe. Raises ``RecipeError``."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from None
    stage = table.pop("stage", None)
    if stage != "kmeans":
        raise RecipeError(f"{path}: stage must be 'kmeans', got {stage!r}")
    kmeans = _build(KMeansConfig, table.pop("kmeans", {}), f"{path}: [kmeans]")
    return _build(KMeansRecipe, {**table, "kmeans": kmeans}, str(path))


def _build(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """A frozen dataclass from a table, refusing fields it does not know or lacks."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RecipeError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(known)}")
    missing = [name for name, f in known.items() if name not in values and f.default is MISSING]
    if missing:
        raise RecipeError(f"{where}: the field {missing[0]!r} is missing")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from None
