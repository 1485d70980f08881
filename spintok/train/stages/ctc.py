"""CTC: the encoder learns to write down what is said (Graves et al. 2006, "Connectionist Temporal Classification")."""

import torch
from torch.nn import functional as F

from spintok.data.audio import read
from spintok.data.ctc_targets import CtcTargets
from spintok.frames import SAMPLE_RATE
from spintok.masks import length_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.train.batching.examples import Batch, Recordings, pad
from spintok.train.batching.plan import Planned
from spintok.train.distributed import Ranks
from spintok.train.stages.base import StageModel, Step, full_precision
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["CtcExamples", "CtcModel"]


class CtcExamples:
    """Batches of whole utterances with their symbols; those without a transcript must not be planned."""

    def __init__(self, recordings: Recordings, targets: CtcTargets) -> None:
        self.recordings = recordings
        self.targets = targets

    def __call__(self, planned: Planned) -> Batch:
        inputs, lengths = pad([read(self.recordings.utterances[row].path) for row in planned.rows])
        targets = [self.targets.targets[row] for row in planned.rows]
        labels = pad([torch.tensor(target) for target in targets], -1)[0]
        return Batch(planned.place, int(lengths.sum()) / SAMPLE_RATE, inputs, lengths, labels=labels)


class CtcModel(StageModel):
    """The encoder, a projection, and a unit vector for each symbol, the blank first.

    Args:
        encoder: what of it trains is its own affair.
        symbols: how many, with the blank.
        width: E, of the vectors.
        temperature: divides the cosines.
        ranks: over which symbols are counted.
    """

    def __init__(self, encoder: TrainableEncoder, symbols: int, width: int, temperature: float, ranks: Ranks) -> None:
        features = encoder.encoder.num_features
        book = Codebook(CodebookConfig("primary", symbols, features, width, "dot", projection=True))
        super().__init__(encoder, [book])
        self.temperature = temperature
        self.ranks = ranks

    def forward(self, batch: Batch) -> Step:
        """The negative log likelihood of the transcripts, a symbol.

        An utterance with fewer frames than its transcript needs counts as 0. Figures: ``blank``, the share of frames
        whose best symbol is the blank.
        """
        assert batch.labels is not None
        features, counts = self.encoder(batch.inputs, batch.lengths)
        with torch.autocast(features.device.type, enabled=False):
            scores = self.primary.embed(full_precision(features)) @ self.primary.normalized_codewords().T
            log_probabilities = F.log_softmax(scores / self.temperature, dim=2)
            present = batch.labels >= 0
            total = F.ctc_loss(
                log_probabilities.transpose(0, 1),
                batch.labels.clamp(min=0),
                counts,
                present.sum(1),
                blank=0,
                reduction="sum",
                zero_infinity=True,
            )
        valid = length_mask(counts, features.shape[1])
        blanks = ((scores.detach().argmax(2) == 0) & valid).sum()
        symbols, blank, frames = self.ranks.total(torch.stack([present.sum(), blanks, valid.sum()]).double()).float()
        # The mean over ranks of this is the mean over all symbols.
        return Step(total * (self.ranks.size / symbols), {"blank": blank / frames})
