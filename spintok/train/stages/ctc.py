"""Stage II: the encoder learns to recognize speech by connectionist temporal classification (Graves et al. 2006)."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spintok._files import require
from spintok.data.audio import read
from spintok.data.labels.ctc_targets import CtcTargets, read_lexicon
from spintok.data.labels.spelling import Spelling
from spintok.data.labels.transcripts import TranscriptError, Transcripts
from spintok.data.manifest import Utterance
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

__all__ = ["CtcExamples", "CtcModel", "build", "symbol_prior"]


def build(recipe: CtcRecipe, corpus: Corpus, distributed: Distributed) -> Stage:
    """Read the transcripts and open the encoder. Raises ``ValueError``."""
    if recipe.transcripts is None and not corpus.path.is_file():
        raise RecipeError(f"{corpus.path} is a folder without transcripts: name their file in the field transcripts")
    recordings = corpus.recordings(recipe)
    texts = Transcripts(corpus.path if recipe.transcripts is None else Path(recipe.transcripts))
    lexicon = None if recipe.lexicon is None else read_lexicon(Path(recipe.lexicon))
    guess = Spelling(lexicon).pronounce if lexicon is not None and recipe.unknown_words == "guess" else None
    targets = CtcTargets.of(corpus.utterances, texts, lexicon, guess)
    known = np.array([target is not None for target in targets.targets])
    # The transcript of a whole utterance does not fit a crop.
    usable = np.where(known & (corpus.samples <= recordings.max_samples), corpus.samples, 0)
    notes = []
    if skipped := int((usable == 0).sum()):
        notes.append(f"{skipped} of {len(usable)} utterances are skipped: too long, or without a usable transcript")
    if targets.unknown_words:
        words = targets.unknown_words
        what = f"{len(words)} words are not in the lexicon, such as {', '.join(words[:3])}"
        notes.append(what if guess is None else f"{what}; their pronunciation is guessed from their spelling")
    encoder = trainable(
        recipe,
        open_start(recipe),
        layer=recipe.layer,
        train_layers=recipe.train_layers,
        train_front_end=recipe.train_front_end,
    )
    prior = symbol_prior(targets, recipe.blank_prior) if recipe.blank_prior else None
    model = CtcModel(encoder, len(targets.symbols), recipe.width, recipe.temperature, distributed, prior)

    def validate(utterances: Sequence[Utterance], listed_in: Path) -> Mapping[str, float]:
        found = _references(utterances, listed_in, recipe, lexicon)
        return {} if found is None else {"symbol_error_rate": model.error_rate(utterances, found, targets.symbols)}

    return Stage(
        model,
        Stage.plan_batches(recipe, usable, distributed),
        lambda folder, progress: CtcExamples(recordings, targets),
        tuple(notes),
        validate,
    )


def symbol_prior(targets: CtcTargets, blank: float) -> Tensor:
    """Prior probabilities (K,): ``blank`` for the blank, the rest by the frequency of the symbols, plus one each."""
    counts = np.ones(len(targets.symbols))
    for target in targets.targets:
        counts += np.bincount(target or (), minlength=len(counts))
    counts[0] = 0
    prior = (1 - blank) * counts / counts.sum()
    prior[0] = blank
    return torch.from_numpy(prior).float()


def _references(
    utterances: Sequence[Utterance], listed_in: Path, recipe: CtcRecipe, lexicon: Mapping[str, Sequence[str]] | None
) -> CtcTargets | None:
    """What the utterances of a development set say, from its manifest or ``transcripts``; None if neither knows any."""
    for source in (listed_in, recipe.transcripts):
        if source is not None and Path(source).is_file():
            try:
                return CtcTargets.of(utterances, Transcripts(Path(source)), lexicon)
            except TranscriptError:
                continue
    return None


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
        prior: (K,) prior probabilities of the symbols, whose logarithms are added to the logits. The tokenizer chooses
            codes without them.
    """

    log_prior: Tensor

    def __init__(
        self,
        encoder: TrainableEncoder,
        symbols: int,
        width: int,
        temperature: float,
        distributed: Distributed,
        prior: Tensor | None = None,
    ) -> None:
        features = encoder.encoder.num_features
        book = Codebook(CodebookConfig("primary", symbols, features, width, "dot", projection=True))
        super().__init__(encoder, [book])
        self.temperature = temperature
        self.distributed = distributed
        log_prior = torch.zeros(symbols) if prior is None else prior.log()
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(self, batch: Batch) -> Step:
        """The negative log likelihood of the transcripts per symbol.

        An utterance with fewer frames than its transcript needs counts as 0. Statistics: ``blank``, the fraction of
        frames whose best symbol is the blank.
        """
        assert batch.labels is not None
        features, counts = self.encoder(batch.inputs, batch.lengths, batch.chunk)
        with torch.autocast(features.device.type, enabled=False):
            logits = self._logits(features)
            log_probabilities = F.log_softmax(logits, dim=2)
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
        blanks = ((logits.detach().argmax(2) == 0) & valid).sum()
        sums = self.distributed.sum(torch.stack([present.sum(), blanks, valid.sum()]).double())
        symbols, blank, frames = sums.float()
        # Averaged over the processes, this is the mean over all symbols.
        return Step(total * (self.distributed.world_size / symbols), {"blank": blank / frames})

    @torch.inference_mode()
    def error_rate(self, utterances: Sequence[Utterance], references: CtcTargets, symbols: Sequence[str]) -> float:
        """Edit distance of the recognized symbols to the references, over the length of the references.

        Recognition takes the best symbol of each frame, merges repetitions and removes blanks; no language model.

        Args:
            utterances: a development set.
            references: its symbols; utterances without are skipped.
            symbols: the names of the model's symbols.

        Raises:
            ValueError: rapidfuzz is not installed, or a file cannot be read.
        """
        distance = require("rapidfuzz.distance", extra="train", purpose="the symbol error rate").Levenshtein.distance
        training = self.training
        self.eval()
        errors = length = 0
        for utterance, target in zip(utterances, references.targets, strict=True):
            if target is None:
                continue
            waveform = read(utterance.path).to(self.distributed.device)
            features, _ = self.encoder(waveform[None], torch.tensor([len(waveform)], device=waveform.device))
            best = self._logits(features)[0].argmax(1).tolist()
            recognized = [symbols[symbol] for symbol, _ in groupby(best) if symbol]
            errors += distance(recognized, [references.symbols[symbol] for symbol in target])
            length += len(target)
        self.train(training)
        return errors / length

    def _logits(self, features: Tensor) -> Tensor:
        cosines = self.primary.embed(full_precision(features)) @ self.primary.normalized_codewords().T
        return cosines / self.temperature + self.log_prior
