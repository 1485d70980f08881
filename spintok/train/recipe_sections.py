"""The sections of a recipe, such as ``[optimizer]`` and ``[views]``. The defaults are Spin's published settings."""

from dataclasses import dataclass, field
from typing import Literal

from spintok.augment import PerturbationStrength
from spintok.frames import HOP, SAMPLE_RATE

__all__ = [
    "CodebookPlan",
    "DataConfig",
    "LabelConfig",
    "LoopConfig",
    "MaskConfig",
    "OptimizerConfig",
    "PhoneConfig",
    "SpinLossConfig",
    "SurroundingsConfig",
    "ViewsConfig",
    "require_at_least",
    "require_positive",
    "require_probability",
]


def require_at_least(minimum: float, **values: float) -> None:
    """Raise ``ValueError`` for the first value below ``minimum``."""
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum:g}, got {value}")


def require_positive(**values: float) -> None:
    """Raise ``ValueError`` for the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def require_probability(**values: float) -> None:
    """Raise ``ValueError`` for the first value outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")


@dataclass(frozen=True)
class DataConfig:
    """How utterances become batches.

    Attributes:
        seconds: audio per batch, summed over all processes; a second view is not counted.
        max_seconds: longer utterances are cropped at random, differently in each epoch. The resulting tokenizer encodes
            longer audio in chunks of this length, or of 30 s if that is shorter.
        min_seconds: shorter utterances are skipped.
        workers: processes that prepare batches ahead of time; 0 prepares them in the training process.
    """

    seconds: float = 256.0
    max_seconds: float = 17.0
    min_seconds: float = 0.5
    workers: int = 2

    def __post_init__(self) -> None:
        # One frame needs 400 samples, which is 25 ms.
        require_at_least(0.025, min_seconds=self.min_seconds)
        require_at_least(self.min_seconds, max_seconds=self.max_seconds, seconds=self.seconds)
        require_at_least(0, workers=self.workers)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with a learning rate that rises linearly, then falls linearly.

    Attributes:
        steps: number of weight updates.
        learning_rate: the maximum, reached after ``warmup`` steps.
        start_rate, final_rate: learning rate of the first step and at the end.
        warmup: steps over which the rate rises.
        weight_decay: added to the gradient ("adam") or applied to the weights ("adamw").
        kind: which of the two variants of Adam.
        betas: decay rates of the two running means.
        clip: maximum norm of the gradient of all weights.
        accumulation: batches whose gradients are averaged for one update.
    """

    steps: int = 5000
    learning_rate: float = 1e-4
    start_rate: float = 1e-6
    final_rate: float = 1e-6
    warmup: int = 2500
    weight_decay: float = 1e-6
    kind: Literal["adam", "adamw"] = "adam"
    betas: tuple[float, ...] = (0.9, 0.999)
    clip: float = 10.0
    accumulation: int = 1

    def __post_init__(self) -> None:
        require_at_least(1, steps=self.steps, accumulation=self.accumulation)
        require_at_least(0, start_rate=self.start_rate, final_rate=self.final_rate, warmup=self.warmup)
        require_at_least(0, weight_decay=self.weight_decay)
        require_positive(learning_rate=self.learning_rate, clip=self.clip)
        if self.warmup > self.steps:
            raise ValueError(f"warmup must be at most steps, got {self.warmup} of {self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")

    def rate(self, step: int) -> float:
        """The learning rate of update ``step``, counted from 0."""
        if step < self.warmup:
            return self.start_rate + (self.learning_rate - self.start_rate) * step / self.warmup
        left = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.learning_rate - self.final_rate) * left


@dataclass(frozen=True)
class LoopConfig:
    """How the training loop runs. Only ``seed`` and ``precision`` change the result.

    Attributes:
        seed: seeds every random draw.
        precision: the encoder's precision. "auto" is float32 on a CPU; on a GPU bfloat16 if it has that, else float16.
        recompute: activation checkpointing: compute each trained layer again in the backward pass to save memory.
        log_every: steps between two rows of the log.
        check_every: steps between two validations on the development set; 0 validates at the end only.
        check_utterances: utterances of the development set to validate on, spread evenly over the set.
        checkpoint_minutes: minutes between two checkpoints; by default every two seconds, or less often if they would
            take more than 2 % of the time. The last step always writes one.
        tensorboard: also write TensorBoard event files.
    """

    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    recompute: bool = False
    log_every: int = 10
    check_every: int = 0
    check_utterances: int = 100
    checkpoint_minutes: float | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        require_at_least(0, seed=self.seed, check_every=self.check_every)
        require_at_least(0, checkpoint_minutes=self.checkpoint_minutes or 0)
        require_at_least(1, log_every=self.log_every, check_utterances=self.check_utterances)


@dataclass(frozen=True)
class CodebookPlan:
    """A codebook to train, with its own projection.

    Attributes:
        name: unique among the codebooks of the recipe; "primary" and "auxiliary" by convention.
        size: K, the number of codewords.
        width: E, the embedding dimension.
        weight: factor of this codebook's loss in the sum.
        keep: whether it begins as the codebook of the same name in the tokenizer that the recipe starts from, instead
            of at random.
    """

    name: str
    size: int
    width: int = 256
    weight: float = 1.0
    keep: bool = False

    def __post_init__(self) -> None:
        require_at_least(2, size=self.size)
        require_at_least(1, width=self.width)
        require_positive(weight=self.weight)


@dataclass(frozen=True)
class SpinLossConfig:
    """The swapped-prediction loss.

    Attributes:
        temperature: the temperature of the softmax.
        epsilon, iterations: the settings of Sinkhorn.
        pauses: the share of frames in pauses (``spintok.train.batching.pauses``), drawn at random, among which Sinkhorn
            divides the codewords. A third of read speech is silence, and with 1 it takes a third of the codewords.
    """

    temperature: float = 0.1
    epsilon: float = 0.02
    iterations: int = 3
    pauses: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(1, iterations=self.iterations)
        require_positive(temperature=self.temperature, epsilon=self.epsilon)
        require_probability(pauses=self.pauses)


@dataclass(frozen=True)
class SurroundingsConfig:
    """What stands around the speech of a view (``spintok.train.batching.surroundings``).

    Attributes:
        piece: probability of a piece of the recording, of ``piece_min`` to ``piece_max`` seconds, drawn uniformly.
        pause: probability, on either side, of silence of up to ``pause_max`` seconds.
        neighbour: probability of a part of another utterance, of up to ``neighbour_max`` seconds, on one side.
        gain: probability of a level change from ``gain_min`` to ``gain_max`` dB, drawn uniformly.
        offset: probability of a constant of up to ``offset_max`` either way, added to every sample.
    """

    piece: float = 0.0
    piece_min: float = 0.4
    piece_max: float = 4.0
    pause: float = 0.0
    pause_max: float = 2.0
    neighbour: float = 0.0
    neighbour_max: float = 1.5
    gain: float = 0.0
    gain_min: float = -30.0
    gain_max: float = 10.0
    offset: float = 0.0
    offset_max: float = 0.1

    def __post_init__(self) -> None:
        require_probability(piece=self.piece, pause=self.pause, neighbour=self.neighbour)
        require_probability(gain=self.gain, offset=self.offset)
        require_at_least(0.1, piece_min=self.piece_min, pause_max=self.pause_max)
        require_at_least(0.2, neighbour_max=self.neighbour_max)
        require_at_least(0, offset_max=self.offset_max)
        if not self.piece_min <= self.piece_max or not self.gain_min <= self.gain_max:
            raise ValueError("need piece_min <= piece_max and gain_min <= gain_max")


@dataclass(frozen=True)
class ViewsConfig:
    """How the second view of an utterance is made; the first view is the recording itself.

    Attributes:
        speaker: bounds of the speaker perturbation.
        reverb, noise: probabilities of adding a synthetic room and of adding noise.
        rt60_min, rt60_max: reverberation time in seconds, drawn uniformly.
        snr_min, snr_max: signal-to-noise ratio in decibels, drawn uniformly.
        noise_files: a folder or manifest of noise recordings. Without it, noise is synthetic, from white to brown.
        babble: probability that the noise is the sum of two to five utterances of the corpus instead.
        band: probability of a low-pass filter with a cutoff from ``band_min`` to ``band_max`` Hz, drawn uniformly.
        shift: the second view is shifted by up to this many samples either way, drawn uniformly. It is less than one
            frame, so that frames still match, and teaches tokens not to depend on where in a frame a sound begins.
        variants: 0 draws a new crop and perturbation in each epoch. N draws N of each utterance once, and computes
            the frozen layers once for each of them, into a file beside the checkpoint.
        surroundings: what stands around the speech; without this section nothing changes there. Pretraining changes
            the surroundings of every utterance, whether it is replaced by its second view or not.
    """

    speaker: PerturbationStrength = field(default_factory=PerturbationStrength)
    reverb: float = 0.0
    rt60_min: float = 0.1
    rt60_max: float = 0.8
    noise: float = 0.0
    snr_min: float = 0.0
    snr_max: float = 20.0
    noise_files: str | None = None
    babble: float = 0.0
    band: float = 0.0
    band_min: float = 3400.0
    band_max: float = 7000.0
    shift: int = 0
    variants: int = 0
    surroundings: SurroundingsConfig | None = None

    def __post_init__(self) -> None:
        require_probability(reverb=self.reverb, noise=self.noise, babble=self.babble, band=self.band)
        require_at_least(0, variants=self.variants, shift=self.shift)
        if self.shift >= HOP:
            raise ValueError(f"shift must be less than a frame of {HOP} samples, got {self.shift}")
        if not 0 < self.rt60_min <= self.rt60_max or not self.snr_min <= self.snr_max:
            raise ValueError("need 0 < rt60_min <= rt60_max and snr_min <= snr_max")
        if not 100 <= self.band_min <= self.band_max <= SAMPLE_RATE / 2:
            raise ValueError("need 100 <= band_min <= band_max <= 8000")
        if self.babble and not self.noise:
            raise ValueError("babble is a kind of noise: set the probability of noise too")
        if self.surroundings and self.variants:
            raise ValueError("views.variants stores two views of the same frames: no views.surroundings")


@dataclass(frozen=True)
class LabelConfig:
    """Labels in addition to Spin's loss, with which all layers can train (R-Spin, NAACL 2024).

    Attributes:
        tokenizer: name or folder of the tokenizer whose codes are the labels, or a file or folder of phone alignments
            (``spintok.data.labels.alignment_files``); frames without a phone then have no label.
        weight: the weight of the cross-entropy.
        source: what predicts the labels: "features", through a linear layer (R-Spin), or "codes", from each codebook's
            code probabilities (``spintok.train.stages.code_labels``), which keeps the codewords close to the labels.
    """

    tokenizer: str
    weight: float = 5.0
    source: Literal["features", "codes"] = "features"

    def __post_init__(self) -> None:
        require_positive(weight=self.weight)


@dataclass(frozen=True)
class PhoneConfig:
    """Phones as labels beside codes: ``alignments``, a file or folder (``spintok.data.labels.alignment_files``).

    Utterances without an alignment have no phones. ``weight`` is that of their cross-entropy.
    """

    alignments: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        require_positive(weight=self.weight)


@dataclass(frozen=True)
class MaskConfig:
    """Span masking (Hsu et al. 2021, "HuBERT"): each frame starts a span of ``length`` frames with ``probability``.

    With ``probability`` 0 nothing is masked.
    """

    probability: float = 0.08
    length: int = 10

    def __post_init__(self) -> None:
        require_at_least(1, length=self.length)
        require_probability(probability=self.probability)
