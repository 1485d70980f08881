"""Recipes: one TOML file describes how one tokenizer is trained; there is one dataclass per stage."""

from dataclasses import dataclass, field, replace
from typing import Literal

from spintok.decoder.network import DecoderConfig
from spintok.models.config import EncoderConfig
from spintok.train.clustering import KMeansConfig
from spintok.train.recipe_sections import (
    CodebookPlan,
    DataConfig,
    LabelConfig,
    LoopConfig,
    MaskConfig,
    OptimizerConfig,
    PhoneConfig,
    SpinLossConfig,
    ViewsConfig,
    require_at_least,
    require_positive,
    require_probability,
)

__all__ = [
    "CtcRecipe",
    "DecoderRecipe",
    "KMeansRecipe",
    "PretrainRecipe",
    "Recipe",
    "RecipeError",
    "SpinRecipe",
    "TrainedRecipe",
    "with_init",
]


class RecipeError(ValueError):
    """An invalid recipe; the message names the file, the field and the cause."""


@dataclass(frozen=True)
class KMeansRecipe:
    """K-means on the features of an encoder: the teacher of HuBERT, and the baseline for Spin.

    Attributes:
        name: the name of the resulting tokenizer.
        encoder: "mfcc", the name or folder of a tokenizer whose encoder is used, or another library's checkpoint.
        layer: the encoder layer whose features are clustered; omit it for MFCC.
        final_norm: whether the last layer of a Large checkpoint includes its final layer norm (``EncoderConfig``).
        share: fraction of each utterance's frames to use, drawn at random with ``kmeans.seed``.
        kmeans: the clustering itself.
    """

    name: str
    encoder: str
    kmeans: KMeansConfig
    layer: int | None = None
    final_norm: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")


@dataclass(frozen=True, kw_only=True)
class TrainedRecipe:
    """Fields of all stages that train by gradient descent.

    Attributes:
        name: the name of the resulting tokenizer.
        start: the output folder of the previous stage, a tokenizer's name, or another library's checkpoint.
        chunks: the encoder may see so many frames at once, drawn for each batch; 0 for all, as by default. Only
            encoders that stream can have others. With two views, only the second is cut.
        optimizer, data, loop: see ``spintok.train.recipe_sections``.
    """

    name: str
    start: str | None = None
    chunks: tuple[int, ...] = (0,)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if not self.chunks or min(self.chunks) < 0:
            raise ValueError(f"chunks must list frames, 0 for all, got {list(self.chunks)}")


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainedRecipe):
    """Stage I: predict the labels of masked frames (Hsu et al. 2021, "HuBERT"); all weights train.

    The result is a tokenizer too: its codewords are the label embeddings.

    Attributes:
        labels: the name or folder of the tokenizer whose codes are the labels; or a file or folder of phone alignments
            (``spintok.data.labels.alignment_files``), and then utterances without an alignment are skipped.
        codebooks: names of codebooks of the tokenizer ``labels``. The codes of each are predicted by a codebook of the
            same name, which begins as a copy of that codebook, and the losses are averaged. By default the codes of its
            primary codebook are predicted by a new codebook.
        phones: phones that one more codebook predicts, in addition to ``codebooks``.
        pauses: whether frames in pauses of the recording have codes as labels too.
        encoder: the architecture, to train from scratch; omit it with ``start``.
        layer: the layer that predicts the labels; the last by default.
        width: dimension of the label embeddings.
        temperature: divides the cosine similarities.
        unmasked: weight of the mean loss over frames that are not masked; 0 omits it.
        mask: the masked spans.
        second_view_probability: probability that an utterance is replaced by its second view (``views``), for example
            the same words in another voice; the labels remain those of the recording. Recipes may also call this field
            ``disguised``, its former name.
        views: how second views are made.
    """

    labels: str
    codebooks: tuple[str, ...] = ()
    phones: PhoneConfig | None = None
    pauses: bool = True
    encoder: EncoderConfig | None = None
    layer: int | None = None
    width: int = 256
    temperature: float = 0.1
    unmasked: float = 0.0
    mask: MaskConfig = field(default_factory=MaskConfig)
    second_view_probability: float = field(default=0.0, metadata={"former_name": "disguised"})
    views: ViewsConfig = field(default_factory=ViewsConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, width=self.width)
        require_at_least(0, unmasked=self.unmasked)
        require_probability(second_view_probability=self.second_view_probability)
        require_positive(temperature=self.temperature)
        if not self.mask.probability and not self.unmasked:
            raise ValueError("without masked frames (mask.probability = 0), unmasked must be above 0")
        if self.views.variants:
            raise ValueError("views.variants needs frozen layers; all weights train here")
        if self.phones and not self.codebooks:
            raise ValueError("phones are predicted in addition to codebooks: name those too")
        if not self.pauses and not self.codebooks:
            raise ValueError("pauses = false is about the codes of codebooks: name those too")


@dataclass(frozen=True, kw_only=True)
class CtcRecipe(TrainedRecipe):
    """Stage II: speech recognition with CTC (Graves et al. 2006), so that the encoder keeps what is said.

    The result is a tokenizer too: its codewords are the symbols, CTC's blank first.

    Attributes:
        symbols: "characters", or "phonemes" with a lexicon.
        lexicon: a text file with a word and its phonemes per line; stress digits are removed.
        transcripts: JSON lines with ``id`` and ``text``, or Kaldi's ``text``; the manifest itself by default.
        unknown_words: "skip" skips utterances with words that the lexicon does not have; "guess" guesses the
            pronunciation of these words from the spelling of the others (``spintok.data.labels.spelling``).
        layer: the layer that predicts the symbols; the last by default.
        train_layers: number of layers that train, counted from the top; all by default.
        train_front_end: whether the convolutions and everything else below the first layer train too.
        width: dimension of the symbol embeddings.
        temperature: divides the cosine similarities.
        blank_prior: prior probability of the blank; the other symbols share the rest by their frequency in the
            transcripts. The logarithms are added to the logits. Without a prior (0) CTC first learns to emit blanks
            everywhere, by features that are all alike, and takes thousands of updates to unlearn it.
    """

    symbols: Literal["characters", "phonemes"] = "characters"
    lexicon: str | None = None
    transcripts: str | None = None
    unknown_words: Literal["skip", "guess"] = "skip"
    layer: int | None = None
    train_layers: int | None = None
    train_front_end: bool = False
    width: int = 256
    temperature: float = 0.1
    blank_prior: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, width=self.width)
        require_at_least(0, train_layers=self.train_layers or 0)
        if not 0 <= self.blank_prior < 1:
            raise ValueError(f"blank_prior must be in [0, 1), got {self.blank_prior}")
        require_positive(temperature=self.temperature)
        if (self.symbols == "phonemes") != (self.lexicon is not None):
            raise ValueError("symbols = 'phonemes' needs a lexicon, and a lexicon needs symbols = 'phonemes'")


@dataclass(frozen=True, kw_only=True)
class SpinRecipe(TrainedRecipe):
    """Stage III: Spin (Chang et al. 2023) with one codebook, DC-Spin (Chang et al. 2024) with two.

    Attributes:
        codebooks: the first one provides the tokens.
        layer: the layer whose features they quantize; the last by default.
        train_layers: number of layers that train, counted from the top.
        train_front_end: whether the convolutions and everything else below the first layer train too.
        loss: the swapped-prediction loss.
        views: how the second view of each utterance is made.
        labels: additional pseudo-labels.
    """

    codebooks: tuple[CodebookPlan, ...]
    layer: int | None = None
    train_layers: int = 2
    train_front_end: bool = False
    loss: SpinLossConfig = field(default_factory=SpinLossConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    labels: LabelConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.codebooks:
            raise ValueError("codebooks must list at least one")
        names = [plan.name for plan in self.codebooks]
        if len(set(names)) < len(names):
            raise ValueError(f"codebooks must have different names, got {', '.join(names)}")
        require_at_least(0, train_layers=self.train_layers)
        if self.views.variants and (self.labels or self.train_front_end):
            raise ValueError("views.variants stores features of a frozen front end: no labels, no train_front_end")


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe(TrainedRecipe):
    """A decoder: from the tokens of one codebook to speech in the voices of the speakers of the data.

    Attributes:
        tokenizer: the name or folder of the tokenizer.
        codebook: the codebook whose tokens are decoded; the primary by default.
        latency: seconds of latency of the tokens, as of ``spintok encode --latency``; by default those of whole
            recordings.
        network: the sizes of the network.
        hold_out: utterances whose CRC-32 of the key is divisible by this are not trained on, but validate the decoder;
            0 trains on all.
        variance: 1 gives the decoded envelopes the variance of natural ones (Toda and Tokuda 2007), 0 leaves them as
            predicted, which is smoother, and sounds muffled.
        analysis: a folder for the analysis of the speech, which runs with the same data can share; by default it is
            beside the checkpoints.
    """

    tokenizer: str | None = None
    codebook: str | None = None
    latency: float | None = None
    network: DecoderConfig = field(default_factory=DecoderConfig)
    hold_out: int = 10
    variance: float = 1.0
    analysis: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_out == 1:
            raise ValueError("hold_out = 1 would hold out everything: give 0 for nothing, or 2 and more")
        require_at_least(0, hold_out=self.hold_out)
        require_probability(variance=self.variance)
        if self.start is not None:
            raise ValueError("a decoder starts from nothing: name its tokenizer in the field tokenizer")


Recipe = KMeansRecipe | PretrainRecipe | CtcRecipe | SpinRecipe | DecoderRecipe


def with_init(recipe: Recipe, source: str) -> Recipe:
    """The recipe with ``source`` as its initial encoder, which replaces an ``encoder`` to train from scratch; for a
    decoder, as its tokenizer."""
    match recipe:
        case KMeansRecipe():
            return replace(recipe, encoder=source)
        case DecoderRecipe():
            return replace(recipe, tokenizer=source)
        case PretrainRecipe():
            return replace(recipe, start=source, encoder=None)
        case _:
            return replace(recipe, start=source)
