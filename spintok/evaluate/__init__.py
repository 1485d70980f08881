"""Metrics of a tokenizer and its tokens, a module or a package for each metric; ``evaluate`` computes them all."""

from spintok.evaluate.abx import AbxScore, abx
from spintok.evaluate.abx_triples import Sampling, Segment, find_segments, sample_segments, used_segments
from spintok.evaluate.bootstrap import Ratios, difference, interval, replicates
from spintok.evaluate.boundaries import Boundaries, boundary_counts, match_boundaries
from spintok.evaluate.metric import Metric, MetricInputs, Result
from spintok.evaluate.ngram import NgramModel
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.perturbations import CONDITIONS, Condition
from spintok.evaluate.phones import PhoneScore
from spintok.evaluate.predictability import bpe_compression, predictability
from spintok.evaluate.probe import collect_frames, probe_codes, probe_features, sweep
from spintok.evaluate.resynthesis import Resynthesis, resynthesize
from spintok.evaluate.robustness import edit_distance, robustness, ued
from spintok.evaluate.run import METRICS, evaluate
from spintok.evaluate.similarity import Moments, compare_tokenizers
from spintok.evaluate.speaker import histograms, probe_speaker, speaker_information

__all__ = [
    "CONDITIONS",
    "METRICS",
    "AbxScore",
    "Boundaries",
    "Condition",
    "Dataset",
    "EvaluationOptions",
    "Metric",
    "MetricInputs",
    "Moments",
    "NgramModel",
    "NoiseSources",
    "PhoneScore",
    "Ratios",
    "Result",
    "Resynthesis",
    "Sampling",
    "Segment",
    "abx",
    "boundary_counts",
    "bpe_compression",
    "collect_frames",
    "compare_tokenizers",
    "difference",
    "edit_distance",
    "evaluate",
    "find_segments",
    "histograms",
    "interval",
    "match_boundaries",
    "predictability",
    "probe_codes",
    "probe_features",
    "probe_speaker",
    "replicates",
    "resynthesize",
    "robustness",
    "sample_segments",
    "speaker_information",
    "sweep",
    "ued",
    "used_segments",
]
