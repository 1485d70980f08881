"""Folders of shards: audio to tokens or features, and back to Python."""

from spintok.corpus.counting import CorpusCounts, count_corpus
from spintok.corpus.engines.ray import RayEncoder
from spintok.corpus.errors import CorpusError
from spintok.corpus.features import FeatureOptions, encode_features, read_features
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import Failure, JobSummary
from spintok.corpus.token_formats import Record, ShardError, read_shard, write_shard
from spintok.corpus.tokens import Options, TokenSummary, encode_corpus, read_corpus

__all__ = [
    "CorpusCounts",
    "CorpusError",
    "Failure",
    "FeatureOptions",
    "JobOptions",
    "JobSummary",
    "Options",
    "RayEncoder",
    "Record",
    "ShardError",
    "TokenSummary",
    "count_corpus",
    "encode_corpus",
    "encode_features",
    "read_corpus",
    "read_features",
    "read_shard",
    "write_shard",
]
