"""The statistics of ``spintok stats`` over the dataset."""

from spintok.data.labels.alignments import SILENCE_LABELS
from spintok.evaluate.metric import Metric, MetricInputs, Result
from spintok.stats import LabelCounts, TokenCounts, metrics

__all__ = ["METRIC"]


def _measure(inputs: MetricInputs) -> Result:
    """``spintok.stats.metrics``. If there are alignments, they determine the codes of silence."""
    tokens, speakers = inputs.encoded.tokens, inputs.dataset.speakers
    size = inputs.tokenizer.size_of(inputs.codebook)
    counts = TokenCounts.collect(
        ((one, speakers.get(key)) for key, one in tokens.items()), size, inputs.tokenizer.frame_rate
    )
    phones = inputs.dataset.phones
    labelled = [LabelCounts.of(tokens[key], phones[key]) for key in tokens if key in phones]
    silence = LabelCounts.summed(labelled, size).codes_of(SILENCE_LABELS) if labelled else None
    measured = metrics(counts, silence)
    values = {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}
    return Result(values, details={name: value for name, value in measured.items() if name not in values})


METRIC = Metric("stats", _measure)
