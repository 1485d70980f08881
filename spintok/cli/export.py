"""``spintok export``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spintok.cli.options import Offline, Quiet, TokenizerName, given, load_tokenizer

__all__ = ["EPILOG", "export"]

EPILOG = """Examples:

  spintok export wav-tokens/ out/ --to parquet                       for datasets.load_dataset

  spintok export wav-tokens/ out/ --to packed --window 2048 --shuffle 0 --split speaker

  spintok export wav-tokens/ llama-speech/ --to hf-tokenizer --base llama/

  spintok export wav-tokens/ out/ --to packed --vocabulary llama-speech/ --task asr --text texts.jsonl

  spintok export wav-tokens/ out/ --to interleaved --vocabulary llama-speech/ --words aligned/ --window 2048

  spintok export call-tokens/ out/ --to dialogue --dialogues calls.jsonl --vocabulary llama-speech/ --words words.ctm

  spintok export wav-tokens/ out/ --to monologue --vocabulary llama-speech/ --words aligned/ --delay 0.16

  spintok export wav-tokens/ units/ --to bpe --vocab-size 1000 --vocab-size 4000"""

Target = Literal[
    "slamkit",
    "s3tokenizer",
    "fairseq",
    "gslm",
    "npz",
    "parquet",
    "webdataset",
    "lhotse",
    "packed",
    "interleaved",
    "dialogue",
    "monologue",
    "hf-tokenizer",
    "bpe",
]

# For each target the options that apply to it alone; any other one of them is an error.
SHARDED = {"dedup", "skip_empty", "shard_size"}
STORED = {"vocabulary", "dtype", "window", "shuffle", "split", "validation"}
TAKEN: dict[Target, set[str]] = {
    "slamkit": {"dedup", "skip_empty"},
    "s3tokenizer": {"dedup", "skip_empty"},
    "fairseq": {"dedup", "skip_empty"},
    "gslm": {"dedup", "skip_empty"},
    "npz": SHARDED,
    "parquet": SHARDED,
    "webdataset": SHARDED,
    "lhotse": {*SHARDED, "text"},
    "packed": {*STORED, "task", "text", "form", "bpe", "skip_empty"},
    "interleaved": {*STORED, "words", "form", "text_words", "speech_words", "seed", "skip_empty"},
    "dialogue": {
        *{*STORED, "dialogues", "words", "speech_chunk", "text_chunk", "silent_code", "cap", "user_loss"},
        *{"seed", "gap", "barge_in", "reaction", "back_channel"},
    },
    "monologue": {*STORED, "words", "pad", "end_of_pad", "delay", "skip_empty"},
    "hf-tokenizer": {"base", "template", "special", "durations", "tokenizer", "bpe"},
    "bpe": {"dedup", "skip_empty", "vocab_size", "train_units"},
}

PACKED, HF, BPE = "--to packed, interleaved, dialogue and monologue", "--to hf-tokenizer", "--to bpe"
MONOLOGUE = "--to monologue"
INTERLEAVED, DIALOGUE, CONVERSATIONS = "--to interleaved", "--to dialogue", "--to interleaved and dialogue"


def export(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="TOKENS... OUT",
            help="Token folders that one tokenizer wrote (spintok encode), and last the folder to write.",
        ),
    ],
    to: Annotated[
        Target,
        typer.Option(
            help="Format to write. slamkit to lhotse are files for other tools. packed, interleaved, dialogue and "
            "monologue are streams of ids for training. hf-tokenizer adds speech tokens to a text tokenizer. bpe "
            "learns to merge units.",
            show_choices=True,
        ),
    ],
    codebook: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a codebook to export; repeat it for several. By default all codebooks, or the first one "
            "where the format holds only one."
        ),
    ] = None,
    dedup: Annotated[
        bool | None,
        typer.Option(
            "--dedup/--no-dedup",
            help="Write each run of equal codes once with its duration, or one code per frame. The default depends "
            "on the format.",
        ),
    ] = None,
    shard_size: Annotated[
        int, typer.Option(help="Utterances per shard, for npz, parquet, webdataset and lhotse.")
    ] = 10_000,
    skip_empty: Annotated[
        bool,
        typer.Option("--skip-empty", help="Leave out utterances without tokens, which are an error otherwise."),
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Transcripts: JSON lines with id and text, or lines KEY WORD WORD. For --task asr and tts, and for "
            "the supervisions of lhotse."
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an extended tokenizer (--to hf-tokenizer) whose ids to write. By default ids are codes, "
            "followed by special tokens.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    task: Annotated[
        Literal["speech", "asr", "tts"],
        typer.Option(
            help="Sequence to write for an utterance: speech alone, speech then text, or text then speech.",
            rich_help_panel=PACKED,
        ),
    ] = "speech",
    form: Annotated[
        Literal["units", "frames", "durations"],
        typer.Option(
            help="How to write speech: the code of each run, the code of each frame, or code and duration of each run.",
            rich_help_panel=PACKED,
        ),
    ] = "units",
    bpe: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a BPE (--to bpe) to merge units with; also for hf-tokenizer.", rich_help_panel=PACKED
        ),
    ] = None,
    dtype: Annotated[
        Literal["uint16", "uint32"] | None,
        typer.Option(
            help="Type of the ids. By default uint16 if the vocabulary fits, otherwise uint32.", rich_help_panel=PACKED
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Cut the sequences into windows of this many ids, with loss masks and positions.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    shuffle: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Shuffle the sequences with this seed. By default they keep their order.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    split: Annotated[
        Literal["speaker", "file"] | None,
        typer.Option(help="Split into train and validation by speaker or by file.", rich_help_panel=PACKED),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            help="Share of the speakers or files that go to validation, with --split.", rich_help_panel=PACKED
        ),
    ] = 0.05,
    words: Annotated[
        Path | None,
        typer.Option(
            help="Times of words: a folder of TextGrids, .ctm, or JSON lines with words. Required for interleaved "
            "and monologue; for dialogue it adds the assistant's text.",
            rich_help_panel=PACKED,
        ),
    ] = None,
    text_words: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="MIN MAX", help="Least and greatest number of words in a span of text.", rich_help_panel=INTERLEAVED
        ),
    ] = (10, 30),
    speech_words: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="MIN MAX",
            help="Least and greatest number of words in a span of speech.",
            rich_help_panel=INTERLEAVED,
        ),
    ] = (5, 15),
    seed: Annotated[
        int, typer.Option(help="Seed of the spans, or of how turns follow each other.", rich_help_panel=CONVERSATIONS)
    ] = 0,
    dialogues: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with id, user and assistant: the keys of the tokens of both channels; or with id, turns, "
            'such as [["user", KEY], ["assistant", KEY]], and back_channels, a list of keys. Required.',
            rich_help_panel=DIALOGUE,
        ),
    ] = None,
    speech_chunk: Annotated[
        int, typer.Option(help="Frames of each channel in a chunk.", rich_help_panel=DIALOGUE)
    ] = 10,
    text_chunk: Annotated[int, typer.Option(help="Text ids in a chunk.", rich_help_panel=DIALOGUE)] = 2,
    silent_code: Annotated[
        list[int] | None,
        typer.Option(
            help="Code that stands for silence; repeat it for several. Runs of at least 5 frames of such codes become "
            "the silence token.",
            rich_help_panel=DIALOGUE,
        ),
    ] = None,
    cap: Annotated[
        int | None,
        typer.Option(help="Shorten silence of both channels to this many frames.", rich_help_panel=DIALOGUE),
    ] = None,
    user_loss: Annotated[
        bool, typer.Option("--user-loss", help="Give the user's channel a loss, too.", rich_help_panel=DIALOGUE)
    ] = False,
    gap: Annotated[
        tuple[float, float],
        typer.Option(metavar="MIN MAX", help="Seconds of silence between turns.", rich_help_panel=DIALOGUE),
    ] = (0.2, 0.8),
    barge_in: Annotated[
        float,
        typer.Option(
            help="Share of the user's turns that interrupt the assistant's turn before them.", rich_help_panel=DIALOGUE
        ),
    ] = 0.0,
    reaction: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="MIN MAX",
            help="Seconds for which an interrupted assistant goes on; the rest of its turn is left out.",
            rich_help_panel=DIALOGUE,
        ),
    ] = (0.2, 0.6),
    back_channel: Annotated[
        float,
        typer.Option(
            help="Share of the assistant's turns of 2 s and more during which the user says one of back_channels.",
            rich_help_panel=DIALOGUE,
        ),
    ] = 0.0,
    delay: Annotated[
        float,
        typer.Option(
            help="Seconds by which the text comes later than the speech; negative if earlier.",
            rich_help_panel=MONOLOGUE,
        ),
    ] = 0.0,
    pad: Annotated[
        int | None,
        typer.Option(
            help="Id of frames without text; 3 for Moshi (default: the vocabulary's silent text).",
            rich_help_panel=MONOLOGUE,
        ),
    ] = None,
    end_of_pad: Annotated[
        int | None,
        typer.Option(
            help="Id of the last frame before a word; 0 for Moshi (default: the vocabulary's begin of text).",
            rich_help_panel=MONOLOGUE,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer to extend: a folder, or a name on the Hugging Face Hub. Its own code is never run.",
            rich_help_panel=HF,
        ),
    ] = None,
    template: Annotated[
        str,
        typer.Option(
            help="Text of a speech token, with {} for its number; or private-use, for one character per token.",
            rich_help_panel=HF,
        ),
    ] = "<|s_{}|>",
    special: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=TEXT",
            help="Text of a special token, such as asr=<|asr|>; repeat it for several.",
            rich_help_panel=HF,
        ),
    ] = None,
    durations: Annotated[
        int, typer.Option(help="Number of duration tokens to add, for 1, 2, ... frames.", rich_help_panel=HF)
    ] = 0,
    tokenizer: TokenizerName = None,
    vocab_size: Annotated[
        list[int] | None,
        typer.Option(help="Number of ids of the BPE, codes included; repeat it for several BPEs.", rich_help_panel=BPE),
    ] = None,
    train_units: Annotated[
        int,
        typer.Option(
            help="Learn from at most this many units, which need 100 bytes of memory each.", rich_help_panel=BPE
        ),
    ] = 10_000_000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier export in OUT and write this one.")
    ] = False,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Export tokens for language models: files of other tools, packed data, extended tokenizers, BPE.

    Utterances keep their order, and every file or the spintok.json beside it names the tokenizer. A command that was
    interrupted continues when you run it again.
    """
    _check_options(context, to)
    from spintok.cli import export_targets as targets

    folders, output = paths[:-1], paths[-1]
    common: dict[str, Any] = {"skip_empty": skip_empty, "overwrite": overwrite}
    storage: dict[str, Any] = {"dtype": dtype, "window": window, "shuffle": shuffle, "split_by": split}
    storage["validation"] = validation
    match to:
        case "packed":
            summary = targets.packed(
                folders, output, codebook, vocabulary, task, text, bpe, form=form, **storage, **common
            )
        case "interleaved":
            spans: dict[str, Any] = {"text_words": text_words, "speech_words": speech_words, "seed": seed}
            summary = targets.with_words(
                to, folders, output, codebook, vocabulary, words, storage, form=form, **spans, **common
            )
        case "monologue":
            stream: dict[str, Any] = {"pad": pad, "end_of_pad": end_of_pad, "delay": delay}
            summary = targets.with_words(to, folders, output, codebook, vocabulary, words, storage, **stream, **common)
        case "dialogue":
            chunks: dict[str, Any] = {"speech_chunk": speech_chunk, "text_chunk": text_chunk, "cap": cap}
            chunks |= {"silent_codes": silent_code or [], "user_loss": user_loss, "overwrite": overwrite}
            taking: dict[str, Any] = {"gap": gap, "barge_in": barge_in, "reaction": reaction}
            chunks |= {"turn_taking": {**taking, "back_channel": back_channel}, "seed": seed}
            summary = targets.dialogue(folders, output, codebook, vocabulary, dialogues, words, storage, **chunks)
        case "hf-tokenizer":
            # A token folder takes precedence over SPINTOK_TOKENIZER, which is only a default.
            named = tokenizer is not None and (given(context, "tokenizer") or not folders)
            loaded = load_tokenizer(tokenizer, "cpu", offline, quiet) if named else None
            texts: dict[str, Any] = {"template": template, "durations": durations, "overwrite": overwrite}
            texts["offline"] = offline
            line = targets.hf_tokenizer(folders, output, base, loaded, codebook, bpe, special or [], **texts)
            targets.report([line], quiet)
            return
        case "bpe":
            runs = True if dedup is None else dedup
            rows = targets.bpe(
                folders, output, vocab_size or [], codebook, dedup=runs, train_units=train_units, **common
            )
            targets.print_rows(rows, quiet)
            return
        case _:
            shards: dict[str, Any] = {"dedup": dedup, "shard_size": shard_size}
            summary = targets.files(folders, output, to, codebook, text, **shards, **common)
    targets.report(targets.summary_lines(summary, output, to), quiet)


def _check_options(context: typer.Context, to: Target) -> None:
    for name in set().union(*TAKEN.values()) - TAKEN[to]:
        if given(context, name):
            targets = " or ".join(target for target, names in TAKEN.items() if name in names)
            raise typer.BadParameter(f"--{name.replace('_', '-')} is for --to {targets}, not for {to}")
