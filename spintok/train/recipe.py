"""Recipes: one TOML file says how one tokenizer is made. The defaults are Spin's published settings."""

from dataclasses import dataclass, field
from typing import Literal

from spintok.augment import PerturbationStrength
from spintok.frames import HOP, SAMPLE_RATE
from spintok.models.config import EncoderConfig
from spintok.train.clustering import KMeansConfig

__all__ = [
    "CodebookPlan",
    "CtcRecipe",
    "DataConfig",
    "KMeansRecipe",
    "LabelConfig",
    "LoopConfig",
    "MaskConfig",
    "OptimizerConfig",
    "PretrainRecipe",
    "Recipe",
    "RecipeError",
    "SpinLossConfig",
    "SpinRecipe",
    "TrainedRecipe",
    "ViewsConfig",
]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the field and the cause."""


def _at_least(minimum: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum:g}, got {value}")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")


@dataclass(frozen=True)
class DataConfig:
    """What goes into a step.

    Attributes:
        seconds: of original audio in a batch, over all ranks.
        max_seconds: longer utterances are cropped at random, anew in each epoch; the tokenizer that comes out encodes
            longer audio in windows of as much, 30 s at most.
        min_seconds: shorter utterances are left out.
        workers: processes that prepare batches ahead of time; 0 prepares them between steps.
    """

    seconds: float = 256.0
    max_seconds: float = 17.0
    min_seconds: float = 0.5
    workers: int = 2

    def __post_init__(self) -> None:
        # One frame needs 400 samples.
        _at_least(0.025, min_seconds=self.min_seconds)
        _at_least(self.min_seconds, max_seconds=self.max_seconds, seconds=self.seconds)
        _at_least(0, workers=self.workers)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, with the learning rate rising and falling in straight lines.

    Attributes:
        steps: updates of the weights in all.
        learning_rate: the highest, reached after ``warmup`` steps.
        start_rate, final_rate: at the first step, and at the end.
        warmup: steps of rising.
        weight_decay: added to the gradient ("adam"), or taken off the weights ("adamw").
        kind: the two forms of Adam.
        betas: of the running means.
        clip: the largest norm of the gradient of all weights.
        accumulation: batches whose gradients are averaged before each update.
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
        _at_least(1, steps=self.steps, accumulation=self.accumulation)
        _at_least(0, start_rate=self.start_rate, final_rate=self.final_rate, warmup=self.warmup)
        _at_least(0, weight_decay=self.weight_decay)
        if self.learning_rate <= 0 or self.clip <= 0:
            raise ValueError("learning_rate and clip must be above 0")
        if self.warmup > self.steps:
            raise ValueError(f"warmup must be at most steps, got {self.warmup} of {self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers in [0, 1), got {self.betas}")

    def rate(self, step: int) -> float:
        """The learning rate of update ``step``, from 0."""
        if step < self.warmup:
            return self.start_rate + (self.learning_rate - self.start_rate) * step / self.warmup
        left = (self.steps - step) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.learning_rate - self.final_rate) * left


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs; nothing here but the seed and the precision changes what is learnt.

    Attributes:
        seed: of every random draw.
        precision: of the encoder: "auto" is bfloat16, or else float16, on a GPU and float32 on a CPU.
        recompute: compute each trained layer twice and keep its activations for none: less memory.
        log_every: steps from one line of the log to the next.
        check_every: steps from one check on the development set to the next; 0 checks at the end only.
        check_utterances: how many of its utterances a check takes, evenly from the set.
        checkpoint_minutes: from one checkpoint to the next; there is one at the end in any case.
        tensorboard: write TensorBoard's files too.
    """

    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    recompute: bool = False
    log_every: int = 10
    check_every: int = 0
    check_utterances: int = 100
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _at_least(0, seed=self.seed, check_every=self.check_every, checkpoint_minutes=self.checkpoint_minutes)
        _at_least(1, log_every=self.log_every, check_utterances=self.check_utterances)


@dataclass(frozen=True)
class CodebookPlan:
    """A codebook to train, with a projection of its own.

    Attributes:
        name: "primary" gives the tokens, "auxiliary" trains the encoder.
        size: K, the number of codewords.
        width: E, the width of the embedding.
        weight: of its loss in the sum.
    """

    name: str
    size: int
    width: int = 256
    weight: float = 1.0

    def __post_init__(self) -> None:
        _at_least(2, size=self.size)
        _at_least(1, width=self.width)
        if self.weight <= 0:
            raise ValueError(f"weight must be above 0, got {self.weight}")


@dataclass(frozen=True)
class SpinLossConfig:
    """Of the swapped prediction: the softmax's temperature, and Sinkhorn's epsilon and iterations."""

    temperature: float = 0.1
    epsilon: float = 0.02
    iterations: int = 3

    def __post_init__(self) -> None:
        _at_least(1, iterations=self.iterations)
        if self.temperature <= 0 or self.epsilon <= 0:
            raise ValueError("temperature and epsilon must be above 0")


@dataclass(frozen=True)
class ViewsConfig:
    """How the second view differs from the first, which is the recording itself.

    Attributes:
        speaker: the bounds of the speaker perturbation.
        reverb, noise: the chance that the second view gets a synthetic room, and noise.
        rt60_min, rt60_max: reverberation time in seconds, uniform.
        snr_min, snr_max: of the noise, in decibels, uniform.
        noise_files: a folder or manifest of noise; without it, the noise is synthetic, from white to brown.
        babble: the chance that noise is two to five utterances of the corpus at once instead.
        band: the chance that nothing is left above a frequency from ``band_min`` to ``band_max`` Hz, uniform.
        shift: samples by which the second view is at most late or early, uniform: less than a frame, so that frames
            still match, and enough that tokens learn not to depend on where in a frame a sound begins.
        variants: 0 draws a new crop and perturbation in each epoch. N draws N of each utterance once, and computes
            the frozen part of the encoder once for each of them, in a file beside the checkpoint.
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

    def __post_init__(self) -> None:
        _share(reverb=self.reverb, noise=self.noise, babble=self.babble, band=self.band)
        _at_least(0, variants=self.variants, shift=self.shift)
        if self.shift >= HOP:
            raise ValueError(f"shift must be less than a frame of {HOP} samples, got {self.shift}")
        if not 0 < self.rt60_min <= self.rt60_max or not self.snr_min <= self.snr_max:
            raise ValueError("need 0 < rt60_min <= rt60_max and snr_min <= snr_max")
        if not 100 <= self.band_min <= self.band_max <= SAMPLE_RATE / 2:
            raise ValueError("need 100 <= band_min <= band_max <= 8000")
        if self.babble and not self.noise:
            raise ValueError("babble is a kind of noise: set the chance of noise too")


@dataclass(frozen=True)
class LabelConfig:
    """Fixed pseudo-labels beside Spin's loss, with which all layers can train (R-Spin, NAACL 2024).

    Attributes:
        tokenizer: whose codes are the labels, a name or a folder.
        weight: of the cross-entropy.
        source: what the labels are predicted from: "features", by a linear layer (R-Spin), or "codes", by each
            codebook (``spintok.train.stages.code_labels``), so that its codewords keep to the labels too.
    """

    tokenizer: str
    weight: float = 5.0
    source: Literal["features", "codes"] = "features"

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"weight must be above 0, got {self.weight}")


@dataclass(frozen=True)
class MaskConfig:
    """Spans that are masked (Hsu et al. 2021, "HuBERT"): each frame starts one with ``probability``."""

    probability: float = 0.08
    length: int = 10

    def __post_init__(self) -> None:
        _at_least(1, length=self.length)
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability must lie in (0, 1], got {self.probability}")


@dataclass(frozen=True)
class KMeansRecipe:
    """K-means over the features of an encoder: HuBERT's teacher, and the thing for Spin to beat.

    Attributes:
        name: of the tokenizer that comes out.
        encoder: "mfcc", or a tokenizer's name or folder, or a checkpoint, whose encoder is used.
        layer: the encoder layer whose features are clustered; left out for MFCC.
        share: the share of each utterance's frames that is used, drawn by ``kmeans.seed``.
        kmeans: the clustering itself.
    """

    name: str
    encoder: str
    kmeans: KMeansConfig
    layer: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {self.share}")


@dataclass(frozen=True, kw_only=True)
class TrainedRecipe:
    """What the stages that train by gradient share.

    Attributes:
        name: of the tokenizer that comes out.
        start: the folder that the stage before left, a tokenizer's name, or a checkpoint of another library.
        optimizer, data, loop: see there.
    """

    name: str
    start: str | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainedRecipe):
    """Stage I: predict the labels of masked frames (Hsu et al. 2021, "HuBERT"); every weight trains.

    What comes out is a tokenizer too: its codewords are the embeddings of the labels.

    Attributes:
        labels: the tokenizer, a name or a folder, whose codes are the labels; or a file or folder of phone alignments
            (``spintok.data.alignments``), and then utterances without one are left out.
        encoder: the architecture, when training from scratch; left out with ``start``.
        layer: the layer that predicts; the last by default.
        width: of the embeddings of labels.
        temperature: divides the cosines.
        unmasked: the weight of the mean loss over frames that are not masked; 0 leaves it out.
        mask: the spans.
        disguised: the chance that an utterance is heard as a second view (``views``), in another voice, say; its
            labels stay those of the recording.
        views: what a second view is.
    """

    labels: str
    encoder: EncoderConfig | None = None
    layer: int | None = None
    width: int = 256
    temperature: float = 0.1
    unmasked: float = 0.0
    mask: MaskConfig = field(default_factory=MaskConfig)
    disguised: float = 0.0
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        _at_least(1, width=self.width)
        _at_least(0, unmasked=self.unmasked)
        _share(disguised=self.disguised)
        if self.views.variants:
            raise ValueError("views.variants is for frozen layers; every weight trains here")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class CtcRecipe(TrainedRecipe):
    """Stage II: learn to write down what is said (CTC, Graves et al. 2006), so that the rest is forgotten.

    What comes out is a tokenizer too: its codewords are the symbols, the first of them CTC's blank.

    Attributes:
        symbols: "characters", or "phonemes" by way of a lexicon.
        lexicon: a text file with a word and its phonemes on each line; stress digits are left out.
        transcripts: JSON lines with ``id`` and ``text``, or Kaldi's ``text``; the manifest itself by default.
        layer: the layer that is read; the last by default.
        train_layers: how many of the highest layers train; all by default.
        train_front_end: whether the convolutions and what precedes the first layer train too.
        width: of the embeddings of symbols.
        temperature: divides the cosines.
    """

    symbols: Literal["characters", "phonemes"] = "characters"
    lexicon: str | None = None
    transcripts: str | None = None
    layer: int | None = None
    train_layers: int | None = None
    train_front_end: bool = False
    width: int = 256
    temperature: float = 0.1

    def __post_init__(self) -> None:
        _at_least(1, width=self.width)
        _at_least(0, train_layers=self.train_layers or 0)
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if (self.symbols == "phonemes") != (self.lexicon is not None):
            raise ValueError("a lexicon belongs to symbols = 'phonemes', and they need one")


@dataclass(frozen=True, kw_only=True)
class SpinRecipe(TrainedRecipe):
    """Stage III: Spin (Chang et al. 2023) with one codebook, DC-Spin (Chang et al. 2024) with two.

    Attributes:
        codebooks: the first one gives the tokens.
        layer: the layer that they read; the last by default.
        train_layers: how many of the highest layers train.
        train_front_end: whether the convolutions and what precedes the first layer train too.
        loss: of the swapped prediction.
        views: the two renderings of each utterance.
        labels: pseudo-labels beside it.
    """

    codebooks: tuple[CodebookPlan, ...]
    layer: int | None = None
    train_layers: int = 2
    train_front_end: bool = False
    loss: SpinLossConfig = field(default_factory=SpinLossConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    labels: LabelConfig | None = None

    def __post_init__(self) -> None:
        if not self.codebooks:
            raise ValueError("codebooks must list at least one")
        names = [plan.name for plan in self.codebooks]
        if len(set(names)) < len(names):
            raise ValueError(f"codebooks must have different names, got {', '.join(names)}")
        _at_least(0, train_layers=self.train_layers)
        if self.views.variants and (self.labels or self.train_front_end):
            raise ValueError("views.variants keeps a frozen front end's features: no labels, no train_front_end")


Recipe = KMeansRecipe | PretrainRecipe | CtcRecipe | SpinRecipe
