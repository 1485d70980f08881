"""The decoder stage: from the tokens of a codebook to the acoustic parameters of the recordings.

The network regresses the parameters that WORLD finds in the recordings. The mean of many possible envelopes is smoother
than any of them and sounds muffled, so in the end the envelopes get back the variance of natural ones, each coefficient
by a constant factor (Toda and Tokuda 2007 do so for each utterance; a constant also suits streams).
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from spintok.decoder import Decoder, Source
from spintok.decoder.acoustics import APERIODICITY, CEPSTRUM, LOG_F0, STEP, VOICING
from spintok.frames import num_frames
from spintok.masks import length_mask
from spintok.progress import Progress
from spintok.train.batching.acoustics import AcousticExamples, Acoustics, analyze_corpus
from spintok.train.batching.examples import Batch, Examples, pad
from spintok.train.batching.labels import code_labels
from spintok.train.batching.plan import BatchPlan
from spintok.train.distributed import Distributed
from spintok.train.recipe import DecoderRecipe, RecipeError
from spintok.train.stages.base import Corpus, Learner, Stage, Step
from spintok.train.stages.start import open_tokenizer
from spintok.train.world import load_world

__all__ = ["DecoderModel", "DecoderStage", "build", "held_out", "start_from_codewords"]

_LOUD = 9.0
"""Nepers (78 dB) below the loudest: quieter vectors are silence, whose envelope is the noise of the recording."""


def held_out(key: str, every: int) -> bool:
    """Whether the utterance ``key`` is kept for validation: its CRC-32 is divisible by ``every``; 0 keeps none."""
    return every > 0 and zlib.crc32(key.encode("utf-8", "surrogateescape")) % every == 0


@dataclass(frozen=True)
class DecoderStage:
    """A decoder that is ready to train.

    Attributes:
        model: the model with its initial weights.
        plan: the plan of the batches.
        prepare: computes codes and acoustic parameters into a folder, or finds them there, and returns the function
            that prepares batches; to be called first.
        validate: metrics on the utterances that are held out; None if there are none.
        finish: sets the variance of the decoded envelopes, after training.
        notes: messages for the user.
    """

    model: "DecoderModel"
    plan: BatchPlan
    prepare: Callable[[Path, Progress], Examples]
    validate: Callable[[], Mapping[str, float]] | None
    finish: Callable[[], None]
    notes: tuple[str, ...]


def build(recipe: DecoderRecipe, corpus: Corpus, distributed: Distributed) -> DecoderStage:
    """Open the tokenizer and divide the utterances. Raises ``ValueError``."""
    if recipe.tokenizer is None:
        raise RecipeError("the field tokenizer is missing: name the tokenizer whose tokens to decode, or give --init")
    load_world()
    tokenizer = open_tokenizer("tokenizer", recipe.tokenizer)
    try:
        tokenizer = tokenizer.at(recipe.latency)
    except ValueError as error:
        raise RecipeError(f"latency: {error}") from None
    try:
        codebook = tokenizer.codebook(recipe.codebook).config
    except ValueError as error:
        raise RecipeError(f"codebook: {error}") from None
    grid = tokenizer.grid
    source = Source(
        tokenizer.name,
        tokenizer.fingerprint,
        codebook.name,
        codebook.size,
        grid.hop,
        grid.reach,
        tokenizer.latency,
    )
    speakers = [utterance.speaker or "speaker" for utterance in corpus.utterances]
    voices = sorted(set(speakers))
    decoder = Decoder(source, voices, recipe.network, name=recipe.name)
    start_from_codewords(decoder.network.codes.weight, tokenizer.codebook(recipe.codebook).normalized_codewords())
    model = DecoderModel(decoder, distributed)
    kept = np.array([held_out(utterance.key, recipe.hold_out) for utterance in corpus.utterances])
    if kept.all():
        raise RecipeError(
            f"hold_out: it holds out all {len(kept)} utterances, by the CRC-32 of their keys: give more speech, or "
            "hold_out = 0"
        )
    plan = Stage.plan_batches(recipe, np.where(kept, 0, corpus.samples), distributed)
    trained = np.flatnonzero(plan.samples).tolist()
    # As in training, what is too short for one frame has nothing to tell.
    checked = np.flatnonzero(kept & (corpus.samples >= grid.reach)).tolist()
    acoustics: list[Acoustics] = []

    def prepare(folder: Path, progress: Progress) -> Examples:
        on_device = tokenizer.to(distributed.device)
        labels = code_labels(on_device, corpus.utterances, folder, distributed, progress, [codebook.name])
        place = folder if recipe.analysis is None else Path(recipe.analysis)
        steps = grid.hop // STEP
        analysis = analyze_corpus(corpus.utterances, grid, steps, place, distributed, progress)
        numbers = np.array([voices.index(speaker) for speaker in speakers])
        acoustics.append(Acoustics(labels, analysis, numbers, steps))
        model.set_statistics(*acoustics[0].statistics(trained))
        frames = num_frames(round(recipe.data.max_seconds * grid.rate * grid.hop), grid)
        return AcousticExamples(acoustics[0], frames, recipe.loop.seed)

    note = f"{len(checked)} of {len(kept)} utterances are held out for validation"
    return DecoderStage(
        model,
        plan,
        prepare,
        (lambda: model.validate(acoustics[0], checked)) if checked else None,
        lambda: model.restore_variance(acoustics[0], trained, recipe.variance),
        (note,) if recipe.hold_out else (),
    )


@torch.no_grad()
def start_from_codewords(embeddings: Tensor, codewords: Tensor) -> None:
    """Set embeddings (K, width), in place, to codewords (K, E) turned at random, centred, with unit mean square.

    So neighbours among the codewords, which sound alike, start alike: rare ones learn from frequent ones.
    """
    width, size = embeddings.shape[1], max(embeddings.shape[1], codewords.shape[1])
    turn = torch.linalg.qr(torch.randn(size, size))[0][: codewords.shape[1], :width]
    turned = (codewords.float().cpu() - codewords.float().cpu().mean(0)) @ turn
    embeddings.copy_(turned / turned.square().mean().sqrt().clamp(min=1e-12))


class DecoderModel(Learner):
    """A decoder and its loss."""

    def __init__(self, decoder: Decoder, distributed: Distributed) -> None:
        super().__init__()
        self.decoder = decoder
        self.distributed = distributed

    def set_statistics(self, mean: Tensor, scale: Tensor) -> None:
        """Set mean and standard deviation (PARAMETERS,) of the training speech, which standardize the targets."""
        network = self.decoder.network
        network.mean.copy_(mean)
        network.scale.copy_(scale)
        network.mean[VOICING], network.scale[VOICING] = 0, 1

    def forward(self, batch: Batch) -> Step:
        """The sum of the mean absolute errors of envelope, log F0 and aperiodicity, each standardized, the mean
        cross-entropy of voicing, and the mean absolute error of the log durations.

        Log F0 and aperiodicity count where there is voice. Statistics: ``envelope``, ``pitch``, ``voicing``,
        ``aperiodicity`` and ``duration``, the parts of the sum.
        """
        assert batch.labels is not None
        assert batch.voices is not None
        network = self.decoder.network
        mask = length_mask(batch.lengths, batch.labels.shape[1])
        outputs = network(batch.labels.clamp(min=0), batch.voices, mask)
        fine = mask.repeat_interleave(network.steps, 1)
        found = outputs[fine].float()
        wanted = ((batch.inputs - network.mean) / network.scale)[fine]
        voiced = wanted[:, VOICING]
        errors = (found - wanted).abs()
        parts: dict[str, tuple[Tensor, Tensor | int]] = {
            "envelope": (errors[:, :CEPSTRUM].mean(1).sum(), voiced.numel()),
            "pitch": ((errors[:, LOG_F0] * voiced).sum(), voiced.sum()),
            "aperiodicity": ((errors[:, APERIODICITY] * voiced).sum(), voiced.sum()),
            "voicing": (
                F.binary_cross_entropy_with_logits(found[:, VOICING], voiced, reduction="sum"),
                voiced.numel(),
            ),
            "duration": self._duration_error(batch.labels, batch.voices),
        }
        numbers = [torch.as_tensor(count, device=found.device).float() for _, count in parts.values()]
        counts = self.distributed.sum(torch.stack(numbers))
        counts = counts.clamp(min=1) / self.distributed.world_size
        means = [total / count for (total, _), count in zip(parts.values(), counts, strict=True)]
        statistics = self.distributed.sum(torch.stack([mean.detach() for mean in means])) / self.distributed.world_size
        return Step(torch.stack(means).sum(), dict(zip(parts, statistics, strict=True)))

    def _duration_error(self, labels: Tensor, voices: Tensor) -> tuple[Tensor, int]:
        """The sum over runs of the absolute error of their log durations, and the number of runs."""
        runs = [torch.unique_consecutive(row[row >= 0], return_counts=True) for row in labels]
        units, counts = pad([units for units, _ in runs])
        durations, _ = pad([durations for _, durations in runs], 1)
        mask = length_mask(counts, units.shape[1]).to(labels.device)
        found = self.decoder.network.log_durations(units, voices, mask)
        return ((found - durations.log()).abs() * mask).sum(), int(mask.sum())

    @torch.inference_mode()
    def validate(self, acoustics: Acoustics, rows: Sequence[int]) -> dict[str, float]:
        """Metrics on utterances, of the network without a change of variance.

        ``mcd``: mel-cepstral distortion in dB (Kubichek 1993), without the level, where there is speech;
        ``f0_cents``: root of the mean squared error of F0 in cents, where both are voiced; ``vde``: percentage of
        vectors with the wrong voicing; ``duration``: mean absolute error of the log durations.
        """
        distortion, loud, cents, both, wrong, total, duration, runs = (0.0, 0, 0.0, 0, 0, 0, 0.0, 0)
        training = self.training
        self.eval()
        for row in rows:
            codes, wanted = (part.to(self.distributed.device) for part in acoustics.of(row))
            voice = torch.tensor([acoustics.voices[row]], device=codes.device)
            network = self.decoder.network
            found = network.parameters_of(network(codes[None], voice))
            speech = wanted[:, 0] > wanted[:, 0].max() - _LOUD
            norms = (found[:, 1:CEPSTRUM] - wanted[:, 1:CEPSTRUM]).square().sum(1).sqrt()
            distortion, loud = distortion + float(norms[speech].sum()), loud + int(speech.sum())
            voiced = wanted[:, VOICING] > 0.5
            agree = voiced & (found[:, VOICING] > 0.5)
            octaves = (found[:, LOG_F0] - wanted[:, LOG_F0])[agree] / np.log(2)
            cents, both = cents + float((1200 * octaves).square().sum()), both + int(agree.sum())
            wrong, total = wrong + int((voiced != (found[:, VOICING] > 0.5)).sum()), total + len(wanted)
            error, count = self._duration_error(codes[None], voice)
            duration, runs = duration + float(error), runs + count
        self.train(training)
        return {
            # The envelope is a log amplitude; the basis is orthonormal over the mel scale.
            "mcd": 20 / np.log(10) * distortion / max(loud, 1),
            "f0_cents": float(np.sqrt(cents / max(both, 1))),
            "vde": 100 * wrong / max(total, 1),
            "duration": duration / max(runs, 1),
        }

    @torch.inference_mode()
    def restore_variance(self, acoustics: Acoustics, rows: Sequence[int], strength: float) -> None:
        """Scale each coefficient of the envelope but the level, so that it varies as in natural speech.

        ``strength`` is the exponent of the factor, which is the ratio of the standard deviations over all utterances.
        """
        network = self.decoder.network.eval()
        squares, count = torch.zeros(CEPSTRUM - 1, dtype=torch.float64), 0
        for row in rows:
            codes, _ = acoustics.of(row)
            voice = torch.tensor([acoustics.voices[row]])
            outputs = network(codes[None].to(self.distributed.device), voice.to(self.distributed.device))
            values = outputs[0, :, 1:CEPSTRUM].double().cpu()
            squares, count = squares + values.square().sum(0), count + len(values)
        # The targets are standardized, so their variance is 1.
        factor = (squares / max(count, 1)).clamp(min=1e-2).rsqrt().clamp(min=1)
        network.scale[1:CEPSTRUM] *= (factor**strength).float().to(network.scale.device)
