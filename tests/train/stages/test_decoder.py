"""The decoder stage: it learns, resumes bit for bit, holds out what it says, and writes a decoder."""

import csv
import json

import numpy as np
import pytest
import torch
from command_line import call, run

import spintok
from spintok.decoder import load_decoder
from spintok.decoder.acoustics import CEPSTRUM, PARAMETERS
from spintok.train.distributed import Distributed
from spintok.train.recipe_file import read_recipe
from spintok.train.stages import decoder as stage
from spintok.train.stages.base import Corpus

pytest.importorskip("pyworld")
pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

RECIPE = """
stage = "decoder"
name = "small"
hold_out = 3
[network]
width = 16
hidden = 32
blocks = 2
duration_width = 8
duration_blocks = 1
[data]
seconds = 6
max_seconds = 4
workers = 0
[optimizer]
kind = "adamw"
steps = {steps}
learning_rate = 5e-3
warmup = 2
[loop]
log_every = 1
checkpoint_minutes = 0
"""


@pytest.fixture(scope="module")
def manifest(speech, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    rows = [{"id": p.stem, "path": str(p), "speaker": p.stem.split("_")[0]} for p in sorted(speech.glob("*.flac"))]
    (folder / "speech.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "speech.jsonl"


def train(folder, manifest, steps, *more):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(RECIPE.format(steps=steps))
    return ("train", folder / "recipe.toml", "--data", manifest, "--output", folder / "out", *more)


INIT = ("--init", "mfcc-kmeans-100", "--set", "data.min_seconds=0.3")


def test_a_decoder_learns_and_speaks_in_the_voices_of_its_data(capsys, tmp_path, manifest, speech) -> None:
    code, out, err = run(capsys, *train(tmp_path, manifest, 60, *INIT))
    assert code == 0, err
    assert "decoder small of mfcc-kmeans-100" in out
    assert "6 voices: anna, beth, carl, ..." in out
    log = list(csv.DictReader((tmp_path / "out/training/log.csv").read_text().splitlines()))
    for part in ("loss", "envelope", "voicing", "duration"):
        assert float(log[-1][part]) < 0.9 * float(log[0][part]), part
    decoder = load_decoder(tmp_path / "out")
    tokens = spintok.load("mfcc-kmeans-100").encode(speech / "beth_river.flac")
    waveform = spintok.load("mfcc-kmeans-100").decode(tokens, "beth", decoder=decoder)
    assert waveform.isfinite().all()
    assert 0.001 < waveform.square().mean().sqrt() < 0.5


def test_a_resumed_run_has_the_weights_of_an_undisturbed_one(capsys, tmp_path, manifest) -> None:
    assert call(*train(tmp_path / "whole", manifest, 6, *INIT)) == 0
    # The learning rate depends on the number of steps, so the first part is the run itself, stopped.
    first = train(tmp_path / "parts", manifest, 6, *INIT)
    with pytest.MonkeyPatch.context() as patch:
        advance, done = stage.DecoderModel.forward, 0

        def stop_after_three(self, batch):
            nonlocal done
            done += 1
            if done == 4:
                raise KeyboardInterrupt
            return advance(self, batch)

        patch.setattr(stage.DecoderModel, "forward", stop_after_three)
        assert call(*first) != 0
    assert not (tmp_path / "parts/out/config.json").exists()
    assert call(*first) == 0
    assert "resuming after step" in capsys.readouterr().err
    whole, parts = (tmp_path / name / "out/model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def build(recipe_folder, manifest, *settings):
    recipe_folder.mkdir(exist_ok=True)
    (recipe_folder / "recipe.toml").write_text(RECIPE.format(steps=2))
    recipe = read_recipe(
        recipe_folder / "recipe.toml", ["tokenizer=mfcc-kmeans-100", "data.min_seconds=0.3", *settings]
    )
    return stage.build(recipe, Corpus.open(manifest), Distributed(torch.device("cpu")))


def test_held_out_utterances_are_in_no_batch(tmp_path, manifest) -> None:
    made = build(tmp_path, manifest)
    kept = {row for row in range(6) if made.plan.samples[row] == 0}
    keys = [utterance.key for utterance in Corpus.open(manifest).utterances]
    assert {keys[row] for row in kept} == {key for key in keys if stage.held_out(key, 3)}
    assert 0 < len(kept) < 6
    assert not kept & {row for batch in made.plan.epoch(0) for row in batch}
    assert (build(tmp_path, manifest, "hold_out=0").plan.samples > 0).all()


def distances(points):
    return torch.pdist(points.detach().double())


def test_embeddings_start_as_far_apart_as_the_codewords(tmp_path, manifest) -> None:
    codewords = torch.randn(12, 8).cumsum(0)
    embeddings = torch.zeros(12, 16)
    stage.start_from_codewords(embeddings, codewords)
    ratios = distances(embeddings) / distances(codewords)
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-5, atol=0)
    assert embeddings.square().mean().item() == pytest.approx(1)
    # Of 39 dimensions 16 are left.
    codes = build(tmp_path, manifest).model.decoder.network.codes.weight
    wanted = distances(spintok.load("mfcc-kmeans-100").codebook().normalized_codewords())
    assert torch.corrcoef(torch.stack([distances(codes), wanted]))[0, 1] > 0.6
    # A single codeword has no neighbours.
    stage.start_from_codewords(alone := torch.ones(1, 16), torch.randn(1, 8))
    assert (alone == 0).all()


def test_the_loss_does_not_depend_on_the_padding(tmp_path, manifest) -> None:
    made = build(tmp_path, manifest)
    examples = made.prepare(tmp_path / "work", lambda *args: None)
    made.model.eval()
    batch = max((examples(spec) for spec in _specs(made.plan)), key=lambda b: len(b.lengths))
    assert len(batch.lengths) > 1
    network = made.model.decoder.network
    mask = batch.labels >= 0
    together = network(batch.labels.clamp(min=0), batch.voices, mask)
    for i, length in enumerate(batch.lengths.tolist()):
        alone = network(batch.labels[i : i + 1, :length], batch.voices[i : i + 1])
        torch.testing.assert_close(together[i : i + 1, : 4 * length], alone, rtol=0, atol=1e-5)


def _specs(plan):
    from spintok.train.batching.plan import BatchSpec, Position

    return [BatchSpec(Position(0, number), rows) for number, rows in enumerate(plan.epoch(0))]


def test_the_variance_of_the_envelope_is_restored(tmp_path, manifest) -> None:
    made = build(tmp_path, manifest, "hold_out=0")
    made.prepare(tmp_path / "work", lambda *args: None)
    network = made.model.decoder.network
    before = network.scale.clone()
    # An untrained network predicts next to nothing: every coefficient but the level is scaled up.
    with torch.no_grad():
        network.stack.output.weight.mul_(0.5)
        network.stack.output.bias.zero_()
    made.finish()
    changed = network.scale / before
    assert (changed[1:CEPSTRUM] > 1).all()
    assert (changed[[0, *range(CEPSTRUM, PARAMETERS)]] == 1).all()


def test_the_analysis_is_shared(tmp_path, manifest) -> None:
    shared = f"analysis={tmp_path / 'shared'}"
    build(tmp_path, manifest, shared).prepare(tmp_path / "one", lambda *args: None)
    (file,) = (tmp_path / "shared").glob("*.parameters")
    written = file.stat().st_mtime_ns
    build(tmp_path, manifest, shared).prepare(tmp_path / "two", lambda *args: None)
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("codebook=nothing", "codebook: unknown codebook 'nothing'"),
        ("hold_out=1", "would hold out everything"),
        ("variance=2.0", "variance must be in"),
        ("start=mfcc-kmeans-100", "a decoder starts from nothing"),
        ("latency=0.03", "latency must be a multiple of 0.02 s"),
    ],
)
def test_a_wrong_setting_is_one_line(capsys, tmp_path, manifest, setting, message) -> None:
    code, _, err = run(capsys, *train(tmp_path, manifest, 2, *INIT, "--set", setting))
    assert code != 0
    assert message in err
    assert err.count("\n") == 1


def test_without_a_tokenizer_or_with_a_development_set_it_does_not_start(capsys, tmp_path, manifest) -> None:
    code, _, err = run(capsys, *train(tmp_path, manifest, 2))
    assert (code != 0, "the field tokenizer is missing" in err) == (True, True)
    code, _, err = run(capsys, *train(tmp_path, manifest, 2, *INIT, "--dev", manifest))
    assert (code != 0, "leave --dev out" in err) == (True, True)


def test_a_dry_run_tells_what_would_happen(capsys, tmp_path, manifest) -> None:
    code, out, _ = run(capsys, *train(tmp_path, manifest, 2, *INIT, "--dry-run"))
    assert code == 0
    assert "decoder     decoder small of mfcc-kmeans-100" in out
    assert "latency     0.12 s" in out
    assert not (tmp_path / "out").exists()


def test_silence_and_a_sample_too_few_are_analysed() -> None:
    from spintok.train.world import analyze

    found = analyze(torch.zeros(400), 4)
    assert found.shape == (4, PARAMETERS)
    assert np.isfinite(found).all()


def test_a_voice_for_tokens_with_a_latency(capsys, tmp_path, manifest, speech) -> None:
    assert call(*train(tmp_path, manifest, 2, *INIT, "--set", "latency=0.16")) == 0
    slow = spintok.load("mfcc-kmeans-100").at(0.16)
    tokens = slow.encode(speech / "fred_yes.flac")
    assert len(slow.decode(tokens, decoder=tmp_path / "out")) > 0


def test_data_that_is_all_held_out_is_named(capsys, tmp_path, speech) -> None:
    (tmp_path / "one.jsonl").write_text(json.dumps({"id": "a_river", "path": str(speech / "fred_yes.flac")}) + "\n")
    every = next(n for n in range(2, 10**6) if stage.held_out("a_river", n))
    command = train(tmp_path, tmp_path / "one.jsonl", 2, *INIT, "--set", f"hold_out={every}")
    assert "it holds out all 1 utterances" in run(capsys, *command)[2]


def test_the_folder_that_a_run_starts_from_is_not_replaced(capsys, tmp_path, manifest) -> None:
    spintok.load("mfcc-kmeans-100").save(tmp_path / "out")
    before = (tmp_path / "out" / "config.json").read_bytes()
    code, _, err = run(capsys, *train(tmp_path, manifest, 2, "--init", tmp_path / "out"))
    assert code != 0
    assert "the run starts from this folder and would replace it" in err
    assert (tmp_path / "out" / "config.json").read_bytes() == before
