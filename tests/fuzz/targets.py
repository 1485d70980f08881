"""Readers of files from outside, each with a sample of what it reads and a call that reads it all.

A target builds its sample once into a folder; a case copies the folder, damages one of the files that the target
names, and calls ``read``. A reader may accept what it can still read, or raise one of spintok's own errors.
"""

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from packed_speech import parquet_of, samples_of, tar_of
from voices import SPEECH, mfcc_tokenizer, small_encoder, voices

from spintok.corpus import FeatureOptions, Options, encode_corpus, encode_features, read_corpus, read_features
from spintok.corpus.journal import Journal
from spintok.data.locations.addresses import source_of
from spintok.data.manifest import scan
from spintok.stats import read_counts, to_json
from spintok.tokenizer import Tokenizer

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        build: writes a valid sample into a folder.
        read: reads all of it.
        files: glob patterns of the files to damage, relative to the folder.
        text: whether these files are text.
    """

    build: Callable[[Path], None]
    read: Callable[[Path], object]
    files: tuple[str, ...]
    text: bool = False


_MFCC = mfcc_tokenizer()
_TOKENS = {utterance.key: _MFCC.encode(utterance.path) for utterance in voices()[:5]}
_FEATURES = {
    utterance.key: batch.features[0]
    for utterance in voices()[:5]
    for batch in _MFCC.iter_features([_MFCC.record(utterance.path)], [0])
}


def _build_audio(folder: Path) -> None:
    """The same second of speech in every format that libsndfile writes."""
    samples, rate = soundfile.read(SPEECH / "fred_yes.flac", dtype="float32")
    samples = samples[:rate]
    for name, kind, subtype in (
        ("pcm.wav", "WAV", "PCM_16"), ("float.wav", "WAV", "FLOAT"), ("a.flac", "FLAC", "PCM_16"),
        ("vorbis.ogg", "OGG", "VORBIS"), ("a.opus", "OGG", "OPUS"), ("a.mp3", "MP3", "MPEG_LAYER_III"),
        ("a.aiff", "AIFF", "PCM_16"), ("a.caf", "CAF", "PCM_16"), ("a.w64", "W64", "PCM_16"),
        ("rf64.wav", "RF64", "PCM_16"), ("a.sph", "NIST", "PCM_16"), ("alaw.wav", "WAV", "ALAW"),
        ("a.au", "AU", "PCM_16"), ("adpcm.wav", "WAV", "IMA_ADPCM"),
    ):  # fmt: skip
        soundfile.write(folder / name, samples, rate, format=kind, subtype=subtype)


def _read_audio(folder: Path) -> None:
    for path in folder.iterdir():
        _MFCC.encode(path)


def _build_tokens(format: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        options = Options(format=format, dedup=format != "km", shard_size=2)
        encode_corpus(_MFCC, voices(), folder, options)
        _remove_records(folder)

    return build


def _remove_records(folder: Path) -> None:
    """The readers are to find the damage, not the checksums."""
    for path in folder.glob(".*.record.json"):
        path.unlink()


def _read_tokens(folder: Path) -> None:
    _, records = read_corpus(folder)
    for record in records:
        for tokens in record.tokens.values():
            assert tokens.durations.sum() == tokens.num_frames


def _build_features(format: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        encode_features(_MFCC, voices()[:3], folder, FeatureOptions(layer=0, format=format, shard_size=2))
        _remove_records(folder)

    return build


def _read_features(folder: Path) -> None:
    for record in read_features(folder)[1]:
        assert record.features.ndim == 2


def _build_unfinished(encode: Callable[[Path], None]) -> Callable[[Path], None]:
    """A folder of one complete shard and one with two utterances in its journal."""

    def build(folder: Path) -> None:
        append = Journal.append
        names = []

        def stopping(self: Journal, value: Mapping[str, object]) -> None:
            append(self, value)
            names.append(value.get("name"))
            if sum(name is not None for name in names) == 4:
                raise KeyboardInterrupt

        Journal.append = stopping
        try:
            encode(folder)
        except KeyboardInterrupt:
            return
        finally:
            Journal.append = append

    return build


def _encode_some(folder: Path) -> None:
    encode_corpus(_MFCC, voices()[:5], folder, Options(shard_size=2))


def _encode_some_features(folder: Path) -> None:
    encode_features(_MFCC, voices()[:5], folder, FeatureOptions(layer=0, dtype="float32", shard_size=2))


def _resume(folder: Path) -> None:
    """What a resume accepts must be right: nothing damaged is replayed."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(folder, Path(scratch, "copy"))
        _encode_some(copy)
        for key, record in zip(_TOKENS, read_corpus(copy)[1], strict=True):
            assert record.tokens["primary"] == _TOKENS[key]


def _resume_features(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(folder, Path(scratch, "copy"))
        _encode_some_features(copy)
        for key, record in zip(_FEATURES, read_features(copy)[1], strict=True):
            assert torch.equal(record.features, _FEATURES[key])


def _build_tokenizer(make: Callable[[], Tokenizer]) -> Callable[[Path], None]:
    return lambda folder: make().save(folder)


def _read_tokenizer(folder: Path) -> None:
    from spintok import load

    load(folder).encode(np.zeros(1600, np.float32), 16000)


def _build_checkpoints(folder: Path) -> None:
    """fairseq's, Spin's and Hugging Face's files of tiny encoders."""
    from reference_checkpoints import hubert, spin_checkpoint, third_party, wavlm
    from reference_features import transformers_model

    model, settings = hubert()
    torch.save({"model": model.state_dict(), "cfg": {"model": settings}}, folder / "fairseq.pt")
    torch.save(spin_checkpoint(wavlm()[0]), folder / "spin.ckpt")
    with third_party():
        transformers_model("hubert").save_pretrained(folder)


def _read_checkpoints(folder: Path) -> None:
    from spintok.models.importers import load_encoder, load_spin

    errors = []
    readers = ((load_encoder, folder / "fairseq.pt"), (load_spin, folder / "spin.ckpt"), (load_encoder, folder))
    for read, path in readers:
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _training_run() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


def _build_training(folder: Path) -> None:
    from spintok.train.checkpoint import Checkpoints, TrainState, snapshot

    tensors: dict[str, torch.Tensor] = {}
    snapshot(*_training_run(), tensors)
    Checkpoints(folder, {"seed": 0}).write(tensors, TrainState(step=1))


def _read_training(folder: Path) -> None:
    from spintok.train.checkpoint import Checkpoints

    Checkpoints(folder, {"seed": 0}).resume(*_training_run(), lambda text: None)


def _build_registry(folder: Path) -> None:
    entry = f"""
["team-100"]
description = "DC-Spin"
licence = "CC-BY-4.0"
codebooks = {{ primary = 100, auxiliary = 2048 }}
[team-100.files."config.json"]
url = "https://example.org/config.json"
sha256 = "{"ab" * 32}"
size = 1234
[team-100.files."model.safetensors"]
url = "https://example.org/model.safetensors"
sha256 = "{"cd" * 32}"
size = 5678
"""
    (folder / "registry.toml").write_text(entry)


def _read_registry(folder: Path) -> None:
    from spintok.hub.registry_file import read_entries

    read_entries(folder / "registry.toml")


def _build_recipes(folder: Path) -> None:
    for path in (SPEECH.parents[1] / "recipes").glob("tiny_*.toml"):
        shutil.copy(path, folder)


def _read_recipes(folder: Path) -> None:
    from spintok.train.recipe_file import read_recipe

    for path in folder.iterdir():
        read_recipe(path)


def _build_alignments(folder: Path) -> None:
    phones = [["SIL", 0.0, 0.2], ["Y", 0.2, 0.35], ["EH", 0.35, 0.5], ["S", 0.5, 0.7]]
    lines = [json.dumps({"id": f"u{i}", "phones": phones}) for i in range(5)]
    (folder / "phones.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "phones.ctm").write_text("".join(f"u0 1 {a} {b - a:.2f} {p}\n" for p, a, b in phones))
    grid = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 0.7\ntiers? <exists>\nsize = 1\n'
        'item []:\n    item [1]:\n        class = "IntervalTier"\n        name = "phones"\n        xmin = 0\n'
        "        xmax = 0.7\n        intervals: size = 4\n"
    )
    for number, (phone, start, end) in enumerate(phones, start=1):
        grid += f"        intervals [{number}]:\n            xmin = {start}\n            xmax = {end}\n"
        grid += f'            text = "{phone}"\n'
    (folder / "u0.TextGrid").write_text(grid)
    (folder / "u1.json").write_text(json.dumps({"tiers": {"phones": {"entries": [[a, b, p] for p, a, b in phones]}}}))
    words = [{"word": "yes", "start": 0.2, "end": 0.7}]
    (folder / "u2.json").write_text(json.dumps({"segments": [{"words": words}]}))
    (folder / "u3.csv").write_text(
        "Begin,End,Label,Type,Speaker\n" + "".join(f"{a},{b},{p},phones,s\n" for p, a, b in phones)
    )
    (folder / "u4.PHN").write_text("".join(f"{round(a * 16000)} {round(b * 16000)} {p}\n" for p, a, b in phones))
    (folder / "u5.lab").write_text("".join(f"{round(a * 1e7)} {round(b * 1e7)} {p}\n" for p, a, b in phones))
    (folder / "u6.txt").write_text("".join(f"{a}\t{b}\t{p}\n" for p, a, b in phones))


def _read_alignments(folder: Path) -> None:
    from spintok.data.labels.alignment_files import read_alignments
    from spintok.data.labels.alignments import frame_intervals

    for path in folder.iterdir():
        for alignment in read_alignments(path).values():
            frame_intervals(alignment.phones, 30)


def _build_manifests(folder: Path) -> None:
    paths = sorted(SPEECH.glob("*.flac"))
    rows = "".join(f"{path.name}\t{soundfile.info(path).frames}\n" for path in paths)
    (folder / "list.tsv").write_text(f"{SPEECH}\n{rows}")
    (folder / "wav.scp").write_text("".join(f"{path.stem} {path}\n" for path in paths))
    lines = [json.dumps({"id": p.stem, "path": str(p), "speaker": "s", "num_samples": 9}) for p in paths]
    (folder / "list.jsonl").write_text("\n".join(lines) + "\n")


def _read_manifests(folder: Path) -> None:
    for path in folder.iterdir():
        scan(path)


def _build_tar(folder: Path) -> None:
    names = {f"{'long/' * 30}{path.name}": path.read_bytes() for path in sorted(SPEECH.glob("*.flac"))[-1:]}
    (folder / "a.tar").write_bytes(tar_of({**names, **samples_of(sorted(SPEECH.glob("*.flac"))[-2:])}))


def _build_parquet(folder: Path) -> None:
    paths = sorted(SPEECH.glob("*.flac"))[-2:]
    (folder / "a.parquet").write_bytes(parquet_of([*paths, None], group=1, id=["a", "b", "c"]))


def _build_cuts(folder: Path) -> None:
    path = SPEECH / "fred_yes.flac"
    source = {"type": "file", "channels": [0], "source": str(path)}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 14080, "duration": 0.88}
    cut = {"type": "MonoCut", "channel": 0, "duration": 0.3, "recording": recording, "supervisions": [{"speaker": "s"}]}
    lines = [json.dumps({**cut, "id": f"c{start}", "start": start}) for start in (0.0, 0.2, 0.5)]
    (folder / "cuts.jsonl").write_text("\n".join([*lines, json.dumps(recording)]) + "\n")


def _read_packed_audio(folder: Path) -> None:
    (path,) = folder.iterdir()
    for utterance in scan(path):
        _MFCC.encode(utterance.path)
        source_of(str(utterance.path))


def _read_packed_audio_of_parquet(folder: Path) -> None:
    (path,) = folder.iterdir()
    for utterance in scan(path):
        # The last row holds no audio.
        if not str(utterance.path).startswith("parquet://2/"):
            _MFCC.encode(utterance.path)


def _build_transcripts(folder: Path) -> None:
    lines = [json.dumps({"id": f"u{i}", "text": "the river ran past the old mill"}) for i in range(4)]
    (folder / "text.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "lexicon.txt").write_text("the DH AH0\nriver R IH1 V ER0\nran R AE1 N\n")


def _read_transcripts(folder: Path) -> None:
    from spintok.data.labels.ctc_targets import read_lexicon
    from spintok.data.labels.transcripts import Transcripts

    dict(Transcripts(folder / "text.jsonl"))
    read_lexicon(folder / "lexicon.txt")


def _build_export(target: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        from spintok.export import export_bpe, export_files, export_packed

        _build_tokens("jsonl")(folder / "tokens")
        match target:
            case "packed":
                export_packed([folder / "tokens"], folder / "out")
            case "bpe":
                export_bpe([folder / "tokens"], folder / "out", [101])
                (folder / "out/bpe-101").rename(folder / "bpe-101")
            case _:
                export_files([folder / "tokens"], folder / "out", target)
        for path in (folder / "out").iterdir():
            path.rename(folder / path.name)
        # Without checksums, damage reaches the readers.
        sidecar = json.loads((folder / "spintok.json").read_text())
        (folder / "spintok.json").write_text(json.dumps(sidecar | {"sha256": {}, "files": {}}))
        shutil.rmtree(folder / "tokens")

    return build


def _read_export(folder: Path) -> None:
    from spintok.export import read_export

    _keep_files(folder)
    deque(read_export(folder)[1], maxlen=0)


def _read_packed(folder: Path) -> None:
    from spintok.export import read_packed

    deque(read_packed(folder)[1], maxlen=0)


def _build_bpe(folder: Path) -> None:
    _build_export("bpe")(folder)
    for path in (folder / "bpe-101").iterdir():
        path.rename(folder / path.name)


def _read_bpe(folder: Path) -> None:
    from spintok.export import UnitBpe

    UnitBpe.load(folder)


def _keep_files(folder: Path) -> None:
    """List the files in the sidecar with their present sizes, so that damage reaches the readers."""
    try:
        sidecar = json.loads((folder / "spintok.json").read_text())
        sidecar["files"] = {p.name: p.stat().st_size for p in folder.glob("tokens*")}
    except (ValueError, TypeError, RecursionError):
        return
    (folder / "spintok.json").write_text(json.dumps(sidecar))


def _build_statistics(folder: Path) -> None:
    _build_tokens("jsonl")(folder)


def _read_statistics(folder: Path) -> None:
    to_json(read_counts(folder / "stats.json"))


TARGETS: dict[str, Target] = {
    "audio": Target(_build_audio, _read_audio, ("*",)),
    "tokens-jsonl": Target(_build_tokens("jsonl"), _read_tokens, ("tokens-*", "tokenizer.json"), text=True),
    "tokens-km": Target(_build_tokens("km"), _read_tokens, ("tokens-*", "tokenizer.json"), text=True),
    "tokens-parquet": Target(_build_tokens("parquet"), _read_tokens, ("tokens-*",)),
    "features": Target(_build_features("safetensors"), _read_features, ("features*",)),
    "features-parquet": Target(_build_features("parquet"), _read_features, ("features-*",)),
    "resume": Target(_build_unfinished(_encode_some), _resume, (".*.journal", ".*.record.json"), text=True),
    "resume-features": Target(
        _build_unfinished(_encode_some_features), _resume_features, (".*.journal", ".*.record.json", ".*.data")
    ),
    "mfcc-config": Target(_build_tokenizer(mfcc_tokenizer), _read_tokenizer, ("config.json",), text=True),
    "encoder-config": Target(_build_tokenizer(small_encoder), _read_tokenizer, ("config.json",), text=True),
    "weights": Target(_build_tokenizer(small_encoder), _read_tokenizer, ("model.safetensors",)),
    "checkpoints": Target(_build_checkpoints, _read_checkpoints, ("*",)),
    "training": Target(_build_training, _read_training, ("checkpoint.safetensors",)),
    "registry": Target(_build_registry, _read_registry, ("*",), text=True),
    "recipes": Target(_build_recipes, _read_recipes, ("*",), text=True),
    "alignments": Target(_build_alignments, _read_alignments, ("*",), text=True),
    "manifests": Target(_build_manifests, _read_manifests, ("*",), text=True),
    "audio-tar": Target(_build_tar, _read_packed_audio, ("*",)),
    "audio-parquet": Target(_build_parquet, _read_packed_audio_of_parquet, ("*",)),
    "cuts": Target(_build_cuts, _read_packed_audio, ("*",), text=True),
    "transcripts": Target(_build_transcripts, _read_transcripts, ("*",), text=True),
    "export-slamkit": Target(_build_export("slamkit"), _read_export, ("*.json*",), text=True),
    "export-fairseq": Target(_build_export("fairseq"), _read_export, ("tokens*", "utterances.jsonl"), text=True),
    "export-gslm": Target(_build_export("gslm"), _read_export, ("*.txt", "utterances.jsonl"), text=True),
    "export-npz": Target(_build_export("npz"), _read_export, ("tokens*",)),
    "export-parquet": Target(_build_export("parquet"), _read_export, ("tokens*",)),
    "export-webdataset": Target(_build_export("webdataset"), _read_export, ("tokens*",)),
    "packed": Target(_build_export("packed"), _read_packed, ("tokens*",)),
    "packed-json": Target(_build_export("packed"), _read_packed, ("*.json",), text=True),
    "bpe": Target(_build_bpe, _read_bpe, ("tokenizer.json", "bpe.spintok.json"), text=True),
    "statistics": Target(_build_statistics, _read_statistics, ("stats.json",), text=True),
}
