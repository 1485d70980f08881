"""Read recipe files: TOML, with ``--set`` overrides, into a validated recipe."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from spintok.train.recipe import CtcRecipe, DecoderRecipe, KMeansRecipe, PretrainRecipe, Recipe, RecipeError, SpinRecipe

__all__ = ["STAGES", "read_recipe", "shipped_recipes"]

STAGES: Mapping[str, type[Recipe]] = {
    "kmeans": KMeansRecipe,
    "pretrain": PretrainRecipe,
    "ctc": CtcRecipe,
    "spin": SpinRecipe,
    "decoder": DecoderRecipe,
}

Built = TypeVar("Built")


def read_recipe(path: str | PathLike[str], settings: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: a TOML file, or the name of a recipe that ships with spintok.
        settings: overrides of the form "field=value" or "section.field=value"; list entries are numbered from 0, as in
            "codebooks.0.size=100".

    Raises:
        RecipeError: one line with the file, the field and the cause.
    """
    try:
        table = tomllib.loads(_find(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(shipped_recipes())
        raise RecipeError(f"{path}: no such recipe; give a TOML file or one of {known}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: is a folder, not a recipe") from None
    except (ValueError, RecursionError) as error:
        # Bad UTF-8, integers of thousands of digits and deep nesting raise other errors than TOMLDecodeError.
        raise RecipeError(f"{path}: not TOML: {error}") from None
    for setting in settings:
        _set(table, setting)
    stage = table.pop("stage", None)
    if not isinstance(stage, str) or stage not in STAGES:
        known = ", ".join(repr(name) for name in STAGES)
        raise RecipeError(f"{path}: stage must be one of {known}, got {stage!r}")
    recipe = _build(STAGES[stage], table, str(path), "")
    return replace(recipe, name=_fill_in(recipe, str(path)))


def shipped_recipes() -> list[str]:
    """The names of the recipes that ship with spintok."""
    return sorted(entry.name.removesuffix(".toml") for entry in _shipped().iterdir() if entry.name.endswith(".toml"))


def _find(path: str | PathLike[str]) -> Traversable:
    """The file ``path``, or the recipe that ships under this name if there is no such file."""
    file = Path(path)
    name = file.name.removesuffix(".toml")
    if not file.exists() and file.name == str(path) and name in shipped_recipes():
        return _shipped() / f"{name}.toml"
    return file


def _shipped() -> Traversable:
    try:
        return files("spintok.recipes")
    except ModuleNotFoundError:
        # Python runs in a checkout and imports spintok from there; ``recipes`` is beside it.
        return Path(__file__).parents[2] / "recipes"


def _fill_in(recipe: Recipe, path: str) -> str:
    """The recipe's name with fields in braces replaced by their values, as in "kmeans-{kmeans.size}"."""

    def value(match: re.Match[str]) -> str:
        found: Any = recipe
        for part in match[1].split("."):
            try:
                found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
            except (AttributeError, ValueError, IndexError):
                raise RecipeError(f"{path}: name: there is no field {match[1]!r}") from None
        return str(found)

    return re.sub(r"\{([^{}]*)\}", value, recipe.name)


def _set(table: dict[str, Any], setting: str) -> None:
    """Apply an override to ``table``, in place."""
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"--set {setting}: expected field=value or section.field=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # An unquoted word is a string, as usual on a command line.
        value = text
    *sections, last = name.strip().split(".")
    place: Any = table
    for section in sections:
        place = _entry(place, section, setting) if isinstance(place, list) else place.setdefault(section, {})
        if not isinstance(place, dict | list):
            raise RecipeError(f"--set {setting}: {section!r} is not a section")
    if isinstance(place, list):
        _entry(place, last, setting)
        place[int(last)] = value
    else:
        place[last] = value


def _entry(entries: list[Any], number: str, setting: str) -> Any:
    if not number.isdecimal() or int(number) >= len(entries):
        raise RecipeError(f"--set {setting}: {number!r} is not one of the entries 0 ... {len(entries) - 1}")
    return entries[int(number)]


def _build(kind: type[Built], values: Mapping[str, Any], path: str, where: str) -> Built:
    """Build a dataclass from a table; unknown fields, missing fields and values of the wrong type are errors."""
    known = {f.name: f for f in fields(cast(Any, kind))}
    place = f"{path}: [{where}]" if where else path
    values = dict(values)
    for name, f in known.items():
        former = f.metadata.get("former_name")
        if former in values:
            if name in values:
                raise RecipeError(f"{place}: {former!r} is the former name of {name!r}: set one of the two")
            values[name] = values.pop(former)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise RecipeError(f"{place}: unknown field {unknown[0]!r}; known: {', '.join(known)}")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise RecipeError(f"{place}: the field {missing[0]!r} is missing")
    types = get_type_hints(kind)
    built = {
        name: _value(types[name], value, path, f"{where}.{name}" if where else name) for name, value in values.items()
    }
    try:
        return kind(**built)
    except ValueError as error:
        raise RecipeError(f"{place}: {error}") from None


def _value(kind: Any, value: Any, path: str, where: str) -> Any:
    """Convert ``value`` to the type ``kind`` of a field; integers are accepted as floats."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return _value(kind, value, path, where)
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(cast(type[Any], kind), value, path, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], entry, path, f"{where}.{i}") for i, entry in enumerate(value))
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{path}: {where} must be one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    wanted = "a table" if is_dataclass(kind) else "a list" if origin is tuple else f"of type {kind.__name__}"
    raise RecipeError(f"{path}: {where} must be {wanted}, got {value!r}")
