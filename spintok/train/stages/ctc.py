"""Stage II: the encoder learns to recognize speech by connectionist temporal classification (Graves et al. 2006)."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from spintok.data.audio import read
from spintok.data.ctc_targets import CtcTargets, read_lexicon
from spintok.data.transcripts import Transcripts
from spintok.frames import SAMPLE_RATE
from spintok.masks import length_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.train.batching.examples import Batch, Recordings, pad
from spintok.train.batching.plan import BatchSpec
from spintok.train.distributed import Distributed
from spintok.train.recipe import CtcRecipe, RecipeError
from spintok.train.stages.base import Corpus, Stage, StageModel, Step, full_precision
from spintok.train.stages.start import open_start, trainable
from spintok.train.trainable import TrainableEncoder

__all__ = ["CtcExamples", "CtcModel", "build"]


def build(recipe: CtcRecipe, corpus: Corpus, distributed: Distributed) -> Stage:
    """Read the transcripts and open the encoder. Raises ``ValueError``."""
    if recipe.transcripts is None and not corpus.path.is_file():
        raise RecipeError(f"{corpus.path} is a folder without transcripts: name their file in the field transcripts")
    recordings = corpus.recordings(recipe)
    texts = Transcripts(corpus.path if recipe.transcripts is None else Path(recipe.transcripts))
    lexicon = None if recipe.lexicon is None else read_lexicon(Path(recipe.lexicon))
    targets = CtcTargets.of(corpus.utterances, texts, lexicon)
    known = np.array([target is not None for target in targets.targets])
    # The transcript of a whole utterance does not fit a crop.
    usable = np.where(known & (corpus.samples <= recordings.max_samples), corpus.samples, 0)
    notes = []
    if skipped := int((usable == 0).sum()):
        notes.append(f"{skipped} of {len(usable)} utterances are skipped: too long, or without a usable transcript")
    if targets.unknown_words:
        words = targets.unknown_words
        notes.append(f"{len(words)} words are not in the lexicon, such as {', '.join(words[:3])}")
    encoder = trainable(
        recipe,
        open_start(recipe),
        layer=recipe.layer,
        train_layers=recipe.train_layers,
        train_front_end=recipe.train_front_end,
    )
    model = CtcModel(encoder, len(targets.symbols), recipe.width, recipe.temperature, distributed)
    plan = Stage.plan_batches(recipe, usable, distributed)
    return Stage(model, plan, lambda folder, progress: CtcExamples(recordings, targets), tuple(notes))


class CtcExamples:
    """Batches of whole utterances with their symbols; utterances without a transcript must not be in the plan."""

    def __init__(self, recordings: Recordings, targets: CtcTargets) -> None:
        self.recordings = recordings
        self.targets = targets

    def __call__(self, spec: BatchSpec) -> Batch:
        inputs, lengths = pad([read(self.recordings.utterances[row].path) for row in spec.rows])
        targets = [self.targets.targets[row] for row in spec.rows]
        labels = pad([torch.tensor(target) for target in targets], -1)[0]
        return Batch(spec.position, int(lengths.sum()) / SAMPLE_RATE, inputs, lengths, labels=labels)


class CtcModel(StageModel):
    """The encoder, a projection, and a unit vector for each symbol, the blank first.

    Args:
        encoder: knows which of its layers train.
        symbols: number of symbols, including the blank.
        width: E, dimension of the vectors.
        temperature: divides the cosine similarities.
        distributed: the processes whose symbols are counted.
    """

    def __init__(
        self, encoder: TrainableEncoder, symbols: int, width: int, temperature: float, distributed: Distributed
    ) -> None:
        features = encoder.encoder.num_features
        book = Codebook(CodebookConfig("primary", symbols, features, width, "dot", projection=True))
        super().__init__(encoder, [book])
        self.temperature = temperature
        self.distributed = distributed

    def forward(self, batch: Batch) -> Step:
        """The negative log likelihood of the transcripts per symbol.

        An utterance with fewer frames than its transcript needs counts as 0. Statistics: ``blank``, the fraction of
        frames whose best symbol is the blank.
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
        sums = self.distributed.sum(torch.stack([present.sum(), blanks, valid.sum()]).double())
        symbols, blank, frames = sums.float()
        # Averaged over the processes, this is the mean over all symbols.
        return Step(total * (self.distributed.world_size / symbols), {"blank": blank / frames})
