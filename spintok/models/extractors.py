"""All kinds of feature extractors by the ``type`` that config.json gives them."""

from collections.abc import Mapping
from typing import Any

from spintok.models.base import FeatureExtractor
from spintok.models.encoder import Encoder
from spintok.models.importers.upstream import Upstream
from spintok.models.importers.w2v_bert import W2vBert
from spintok.models.mfcc import Mfcc

__all__ = ["EXTRACTORS", "extractor_from_config"]

EXTRACTORS: Mapping[str, type[FeatureExtractor]] = {kind.type_name: kind for kind in (Encoder, Mfcc, Upstream, W2vBert)}


def extractor_from_config(config: Mapping[str, Any]) -> FeatureExtractor:
    """The extractor that the ``encoder`` section of a config.json describes; its weights are loaded afterwards.

    Raises:
        ValueError: an unknown type or field, or an impossible value.
        ImportError: the extractor needs a library that is not installed.
    """
    values = dict(config)
    kind = values.pop("type")
    if kind not in EXTRACTORS:
        raise ValueError(f"unknown encoder type {kind!r}; this release knows {', '.join(EXTRACTORS)}")
    return EXTRACTORS[kind].from_config(values)
