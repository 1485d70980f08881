"""Statistics of tokens: counts that add up, and the metrics computed from them."""

from spintok.stats.counts import TokenCounts
from spintok.stats.entropy import entropy, jensen_shannon
from spintok.stats.joint_counts import JointCounts
from spintok.stats.label_counts import LabelCounts
from spintok.stats.metrics import dependence, drift, metrics, zipf_slope
from spintok.stats.stats_json import from_json, read_counts, to_json

__all__ = [
    "JointCounts",
    "LabelCounts",
    "TokenCounts",
    "dependence",
    "drift",
    "entropy",
    "from_json",
    "jensen_shannon",
    "metrics",
    "read_counts",
    "to_json",
    "zipf_slope",
]
