"""Tokens for language models: files of other tools, extended tokenizers, training sequences, packed data sets, BPE."""

from spintok.export.bpe import UnitBpe, export_bpe
from spintok.export.embeddings import project_codewords, resize_embeddings
from spintok.export.errors import ExportError
from spintok.export.hf_tokenizer import extend_tokenizer, text_encoder
from spintok.export.packed.conversation import (
    export_dialogue,
    export_interleaved,
    export_monologue,
    read_words,
)
from spintok.export.packed.dataset import export_packed
from spintok.export.packed.dialogues import Dialogue, Script, read_dialogues
from spintok.export.packed.indexed import IndexedDataset
from spintok.export.packed.packing import Packing
from spintok.export.packed.reader import Windows, read_packed
from spintok.export.packed.windows import Packer, Window, pack, split_of
from spintok.export.sequences.base import TokenSequence, read_speech, speech_only
from spintok.export.sequences.dialogue import Turn, cap_silence, full_duplex, half_duplex, silent_frames
from spintok.export.sequences.monologue import inner_monologue, monologue
from spintok.export.sequences.multi_codebook import all_codebooks, delay, read_codebooks, undelay
from spintok.export.sequences.speech_text import Word, interleave, speech_to_text, text_to_speech
from spintok.export.sequences.turn_taking import Spoken, TurnTaking, TwoChannels, take_turns
from spintok.export.source import Header, open_source
from spintok.export.targets import FILE_TARGETS, ExportSummary, export_files, read_export
from spintok.export.vocabulary import Vocabulary

__all__ = [
    "FILE_TARGETS",
    "Dialogue",
    "ExportError",
    "ExportSummary",
    "Header",
    "IndexedDataset",
    "Packer",
    "Packing",
    "Script",
    "Spoken",
    "TokenSequence",
    "Turn",
    "TurnTaking",
    "TwoChannels",
    "UnitBpe",
    "Vocabulary",
    "Window",
    "Windows",
    "Word",
    "all_codebooks",
    "cap_silence",
    "delay",
    "export_bpe",
    "export_dialogue",
    "export_files",
    "export_interleaved",
    "export_monologue",
    "export_packed",
    "extend_tokenizer",
    "full_duplex",
    "half_duplex",
    "inner_monologue",
    "interleave",
    "monologue",
    "open_source",
    "pack",
    "project_codewords",
    "read_codebooks",
    "read_dialogues",
    "read_export",
    "read_packed",
    "read_speech",
    "read_words",
    "resize_embeddings",
    "silent_frames",
    "speech_only",
    "speech_to_text",
    "split_of",
    "take_turns",
    "text_encoder",
    "text_to_speech",
    "undelay",
]
