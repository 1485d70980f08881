"""Every stage from the command line, on the sample speech, each from the output folder of the one before."""

import csv
import json
import math
import sys

import numpy as np
import pytest
import torch
from small_models import tiny_encoder

from spintok import cli
from spintok.chunking import Window
from spintok.data.labels.alignments import Alignment, Interval
from spintok.data.manifest import Utterance
from spintok.loading import load
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.streaming import StreamingConfig
from spintok.tokenizer import Tokenizer
from spintok.train.batching.examples import Batch
from spintok.train.batching.labels import phone_labels
from spintok.train.batching.plan import Position
from spintok.train.distributed import Distributed
from spintok.train.dry_run import estimate_memory
from spintok.train.recipe_file import read_recipe
from spintok.train.stages import build
from spintok.train.stages.base import Corpus
from spintok.train.stages.start import open_encoder
from spintok.train.trainable import TrainableEncoder

ENCODER = (
    "conv_channels = [8, 8, 8, 8, 8, 8, 8]\nwidth = 16\nheads = 2\nfeed_forward = 32\nlayers = 2\n"
    "positional_kernel = 8\npositional_groups = 2\n"
)
COMMON = (
    "[data]\nseconds = 10\nmax_seconds = 5\nworkers = 0\n"
    "[optimizer]\nsteps = 12\nwarmup = 1\nlearning_rate = 3e-3\n[loop]\nlog_every = 1\n"
)
PRETRAIN = f'stage = "pretrain"\nname = "one"\nlabels = "mfcc-kmeans-100"\nwidth = 8\n[encoder]\n{ENCODER}{COMMON}'
CTC = f'stage = "ctc"\nname = "two"\nwidth = 8\n{COMMON}'
SPIN = (
    'stage = "spin"\nname = "three"\ntrain_layers = 1\n[[codebooks]]\nname = "primary"\nsize = 9\nwidth = 8\n'
    f'[[codebooks]]\nname = "auxiliary"\nsize = 20\nwidth = 8\n{COMMON}'
)
KMEANS = 'stage = "kmeans"\nname = "four"\nencoder = "mfcc"\nlayer = 2\n[kmeans]\nsize = 9\nsample = 100\n'
TEXT = "anna_tokens speech becomes tokens\nbeth_river the river runs\neve_bus nine people\nfred_yes yes\n"


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["spintok", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_all_stages_in_a_row(monkeypatch, capsys, speech, tmp_path) -> None:
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "text.toml").write_text(CTC)
    stages = {
        "one": (PRETRAIN, []),
        "two": (CTC, ["--init", "one", "--set", f"transcripts={tmp_path / 'text'}", "--dev", speech]),
        "three": (SPIN, ["--init", "two"]),
        "again": (PRETRAIN, ["--init", "three", "--set", "labels=three"]),
        "four": (KMEANS, ["--init", "three"]),
    }
    monkeypatch.chdir(tmp_path)
    for name, (recipe, more) in stages.items():
        (tmp_path / f"{name}.toml").write_text(recipe)
        if name == "four":
            more = [*more, "--set", "layer=2"]
        common = ("train", f"{name}.toml", "--data", speech, "--output", name, "--device", "cpu")
        assert run(monkeypatch, *common, *more) == 0, capsys.readouterr().err
        tokenizer = load(name)
        tokens = tokenizer.encode(speech / "fred_yes.flac")
        assert tokens.num_frames == 43
        assert f"tokenizer {tokenizer.name}" in capsys.readouterr().out
        if name != "four":
            with (tmp_path / name / "training/log.csv").open() as file:
                losses = [float(row["loss"]) for row in csv.DictReader(file)]
            assert losses[-1] < losses[0], name
            # Utterances in training have at most 5 s.
            assert tokenizer.window == Window(keep=250 - 2 * 41, context=41), name
    with (tmp_path / "two/training/checks.csv").open() as file:
        (check,) = csv.DictReader(file)
    assert check.keys() == {"step", "perplexity", "ued_pooled_speaker", "symbol_error_rate"}
    assert float(check["symbol_error_rate"]) > 0
    assert load("three").codebook_names == ["primary", "auxiliary"]
    assert load("again").codebook_size == 9
    # Weights that do not train stay the same.
    before, after = load("two").encoder.state_dict(), load("three").encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("layers.1.") for name in changed)


def test_phones_are_labels_and_voices_change(monkeypatch, capsys, speech, tmp_path) -> None:
    """Stage II with aligned phones: K is the number of phones, and utterances without an alignment are skipped."""
    phones = {
        "anna_tokens": [["SIL", 0.0, 0.2], ["AH", 0.2, 0.9], ["K", 0.9, 3.0]],
        "fred_yes": [["Y", 0.1, 0.5], ["AH", 0.5, 0.6]],
        "nobody": [["ZH", 0.0, 1.0]],
    }
    lines = [json.dumps({"id": name, "phones": intervals}) for name, intervals in phones.items()]
    (tmp_path / "phones.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "r.toml").write_text(PRETRAIN)
    settings = [f"labels={tmp_path / 'phones.jsonl'}", "unmasked=1", "optimizer.steps=20"]
    common = ["train", tmp_path / "r.toml", "--data", speech, "--device", "cpu"]
    common += [word for setting in settings for word in ("--set", setting)]
    losses = {}
    # The second is the field's former name, which recipes may still use.
    for chance, field in ((0, "second_view_probability"), (1, "disguised")):
        name = tmp_path / f"chance-{chance}"
        more = ["--set", f"{field}={chance}", "--set", "views.noise=1"]
        assert run(monkeypatch, *common, "--output", name, *more) == 0, capsys.readouterr().err
        assert load(name).codebook_size == 4
        with (name / "training/log.csv").open() as file:
            losses[chance] = [float(row["loss"]) for row in csv.DictReader(file)]
        assert losses[chance][-1] < losses[chance][0]
    assert losses[0][0] != losses[1][0]
    out = capsys.readouterr()
    assert "the labels are 4 phones: AH K SIL Y" in out.out + out.err
    assert "utterances have no alignment and give no phones" in out.out + out.err


STREAMING = EncoderConfig(
    front_end="log_mel",
    conv_channels=(16, 16),
    conv_kernels=(240, 2),
    conv_strides=(160, 2),
    width=16,
    heads=2,
    feed_forward=32,
    layers=2,
    positional_kernel=8,
    positional_groups=2,
    norm_position="pre",
    streaming=StreamingConfig(past=10),
)


def test_a_tokenizer_learns_to_stream(monkeypatch, capsys, speech, tmp_path) -> None:
    """Its own codes and phones are the labels, in chunks and other surroundings; then Spin keeps its codebooks."""
    lines = [{"id": "anna_tokens", "phones": [["SIL", 0.0, 0.2], ["AH", 0.2, 0.9], ["K", 0.9, 3.0]]}]
    (tmp_path / "phones.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    books = [
        Codebook(CodebookConfig(name, size, 16, 8, "dot", projection=True)) for name, size in (("a", 7), ("b", 12))
    ]
    Tokenizer(tiny_encoder(config=STREAMING), books, layer=2, name="old").save(tmp_path / "old")
    around = "[views.surroundings]\npiece = 0.5\npause = 0.5\nneighbour = 0.5\ngain = 0.5\noffset = 0.5\n"
    (tmp_path / "adapt.toml").write_text(
        'stage = "pretrain"\nname = "adapt"\nlabels = "old"\ncodebooks = ["a", "b"]\npauses = false\nunmasked = 1\n'
        f'chunks = [0, 4, 16]\n[phones]\nalignments = "phones.jsonl"\n[mask]\nprobability = 0\n{around}{COMMON}'
    )
    (tmp_path / "spin.toml").write_text(
        'stage = "spin"\nname = "new"\ntrain_layers = 2\nchunks = [4, 16]\n[loss]\npauses = 0.1\n'
        '[[codebooks]]\nname = "a"\nsize = 7\nwidth = 8\nkeep = true\n'
        f'[labels]\ntokenizer = "phones.jsonl"\nsource = "codes"\n{around}{COMMON}'
    )
    monkeypatch.chdir(tmp_path)
    common = ("--data", speech, "--device", "cpu")
    assert run(monkeypatch, "train", "adapt.toml", *common, "--init", "old", "--output", "adapt") == 0
    assert "5 of 6 utterances have no alignment" in "".join(capsys.readouterr())
    adapted = load("adapt")
    assert adapted.codebook_names == ["a", "b", "phones"]
    with (tmp_path / "adapt/training/log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"accuracy", "accuracy_b", "accuracy_phones"} <= rows[0].keys()
    # The codebooks begin as the old ones, which made the labels: a random guess of two labels costs log 7 and log 12.
    # Nothing is masked, so the figures are those of all frames.
    assert float(rows[0]["perplexity_b"]) > 1
    first = float(rows[0]["loss"])
    assert first < (math.log(7) + math.log(12)) / 2 + math.log(3)
    assert run(monkeypatch, "train", "spin.toml", *common, "--init", "adapt", "--output", "new") == 0
    assert load("new").encode(speech / "fred_yes.flac").num_frames == 43
    assert run(
        monkeypatch, "train", "spin.toml", *common, "--init", "old", "--output", "x", "--set", "codebooks.0.size=8"
    )
    assert "'a' cannot be kept" in capsys.readouterr().err


def test_frames_without_a_phone_have_no_label(speech, tmp_path) -> None:
    alignment = Alignment(phones=(Interval("B", 0.05, 0.1), Interval("A", 0.2, 9.0)))
    utterance = Utterance("x", tmp_path / "x.wav")
    labels, names = phone_labels(
        {"x": alignment}, [utterance, Utterance("y", tmp_path / "y.wav")], np.array([4000, 4000])
    )
    assert names == ("A", "B")
    # The centres of the frames are 12.5 ms, 32.5 ms, and so on.
    assert labels.codes[0].tolist() == [-1, -1, 1, 1, 1, -1, -1, -1, -1, -1, 0, 0]
    assert labels.codes[1].tolist() == [-1] * 12


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        (PRETRAIN, ["--set", "second_view_probability=2"], "second_view_probability must be in [0, 1], got 2"),
        (PRETRAIN, ["--set", "views.variants=2"], "views.variants needs frozen layers"),
        (PRETRAIN, ["--set", "mask.probability=0"], "without masked frames (mask.probability = 0)"),
        (PRETRAIN, ["--set", "pauses=false"], "pauses = false is about the codes of codebooks"),
        (PRETRAIN, ["--set", "phones.alignments=x"], "phones are predicted in addition to codebooks"),
        (PRETRAIN, ["--set", "codebooks=['x']"], "codebooks: unknown codebook 'x'"),
        (PRETRAIN, ["--set", "chunks=[-1]"], "chunks must list frames, 0 for all"),
        (PRETRAIN, ["--set", "views.surroundings.piece=2"], "piece must be in [0, 1], got 2"),
        (PRETRAIN, ["--set", "labels={speech}"], "no .TextGrid files in this folder"),
        (SPIN, [], "the field start is missing"),
        (SPIN, ["--init", "nowhere"], "nowhere: no such tokenizer or checkpoint"),
        (SPIN, ["--init", "mfcc-kmeans-100"], "has no layers to train"),
        (PRETRAIN, ["--set", "labels=nowhere"], "labels: unknown tokenizer 'nowhere'"),
        (CTC, ["--init", "{tiny}"], "name their file in the field transcripts"),
        (CTC, ["--init", "{tiny}", "--set", "transcripts=nowhere"], "nowhere: no such file"),
        (SPIN, ["--init", "{tiny}", "--set", "layer=9"], "layer must be in 1 ... 3"),
        (SPIN, ["--init", "{tiny}", "--set", "views.noise_files=nowhere"], "nowhere: no such file or folder"),
        (SPIN, ["--init", "{tiny}", "--set", "data.min_seconds=9", "--set", "data.max_seconds=9"], "data.min_seconds"),
        (SPIN, ["--init", "{tiny}", "--alignments", "x"], "alignments belong to a development set"),
        (SPIN, ["--init", "{tiny}", "--device", "toaster"], "unknown device 'toaster'"),
        (KMEANS, [], "layer: mfcc has no layers"),
        (KMEANS, ["--init", "{tiny}", "--set", "layer=4"], r"has the layers 1 ... 3, got 4"),
        (KMEANS, ["--init", "{tiny}", "--set", "kmeans.size=900", "--set", "kmeans.sample=900"], "kmeans.size: 900"),
    ],
)
def test_what_does_not_fit_is_one_line(monkeypatch, capsys, speech, tiny, tmp_path, recipe, more, message) -> None:
    (tmp_path / "r.toml").write_text(recipe)
    more = [word.replace("{tiny}", str(tiny)).replace("{speech}", str(speech)) for word in more]
    output = tmp_path / "o"
    arguments = ("train", tmp_path / "r.toml", "--data", speech, "--output", output, "--quiet", *more)
    assert run(monkeypatch, *arguments) == cli.USAGE
    out, err = capsys.readouterr()
    assert message in err
    # What is wrong with the recipe itself names its file.
    if message.startswith(("the field", "layer", "labels", "kmeans.size", "name their file")):
        assert str(tmp_path / "r.toml") in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (output / "config.json").exists()


def test_an_encoder_of_another_library(tmp_path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_encoder(str(tmp_path))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("scratch", [False, True])
def test_the_memory_estimate_is_near_what_autograd_keeps(speech, tmp_path, recompute, scratch) -> None:
    """Within a factor of two of the bytes that are saved for the backward pass of a batch, at a usual width."""
    (tmp_path / "r.toml").write_text(PRETRAIN)
    wide = ["width=64", "heads=4", "feed_forward=256", "layers=4"]
    recipe = read_recipe(tmp_path / "r.toml", [f"encoder.{setting}" for setting in wide])
    stage = build(recipe, Corpus.open(speech), Distributed(torch.device("cpu")))
    encoder = stage.model.encoder.encoder
    trainable = TrainableEncoder(encoder, train_layers=None if scratch else 3, train_front_end=scratch)
    trainable.encoder.recompute = recompute
    stage.model.encoder = trainable.train()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    waveforms = 0.1 * torch.randn(4, 32_000)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features, _ = trainable(waveforms, torch.full((4,), 32_000))
    assert features.requires_grad
    memory = estimate_memory(stage.model, value_bytes=4, batch_seconds=8.0, recompute=recompute)
    layer = 4 * 400 * (9 * 64 + 2 * 256)
    # Of recomputed layers, one at a time is kept, and only while the backward pass runs.
    expected = memory.activations - (layer if recompute else 0)
    assert expected / 2 < sum(kept.values()) < 2 * expected
    assert memory.total == memory.weights + memory.training + memory.activations + memory.scores


def test_masked_frames_do_not_reach_the_encoder(tmp_path, speech) -> None:
    """Masked audio does not enter the loss: replacing it does not change the loss."""
    (tmp_path / "r.toml").write_text(PRETRAIN.replace("[encoder]\n", '[encoder]\nconv_norm = "layer"\n'))
    stage = build(read_recipe(tmp_path / "r.toml"), Corpus.open(speech), Distributed(torch.device("cpu")))
    model = stage.model.eval()
    model.normalize_codewords()
    waveform = 0.1 * torch.randn(1, 400 + 29 * 320)
    masked = torch.zeros(1, 30, dtype=torch.bool)
    masked[:, 10:20] = True
    labels = torch.randint(0, 100, (1, 30, 1))

    def loss(samples: torch.Tensor) -> float:
        batch = Batch(Position(), 1.0, samples, torch.tensor([samples.shape[1]]), masked=masked, labels=labels)
        return float(model(batch).loss.detach())

    other = waveform.clone()
    # Frames 10 to 19 read the samples 3200 to 6480, frames 9 and 20 up to 3280 and from 6400 on.
    other[:, 3280:6400] = 0.1 * torch.randn(1, 3120)
    assert loss(other) == pytest.approx(loss(waveform), rel=1e-5)
    other[:, 3200:3280] += 0.1
    assert loss(other) != pytest.approx(loss(waveform), rel=1e-5)


def test_truncating_keeps_the_encoder_as_it_was() -> None:
    encoder = tiny_encoder()
    TrainableEncoder(encoder, layer=2, train_layers=1, train_front_end=False)
    assert len(encoder.layers) == 3
