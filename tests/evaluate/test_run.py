"""All metrics together: a small corpus whose phones and speakers differ audibly, through Python and the command."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner
from voices import mfcc_tokenizer, small_encoder

from spintok.cli.app import app
from spintok.cli.exit_codes import FAILED
from spintok.data.audio import AudioError
from spintok.data.labels.alignments import Alignment, Interval
from spintok.data.manifest import Utterance
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.evaluate.perturbations import Condition
from spintok.evaluate.run import METRICS, evaluate
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer

PHONES = {"a": (700, 1200), "i": (300, 2300), "u": (320, 800)}
PITCH = {f"speaker-{i}": 90.0 + 20 * i for i in range(8)}
SMALL = EvaluationOptions(
    draws=20, merges=10, robustness_utterances=32, conditions=(Condition("white", 10.0), Condition("gain", 6.0))
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 utterances of 8 speakers: harmonics of the speaker's pitch around the phone's two formants."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    manifest, phones, words = [], [], []
    for number in range(32):
        speaker = list(PITCH)[number % 8]
        labels = ["SIL", *rng.choice(list(PHONES), 10).tolist(), "SIL"]
        parts = [tones(label, PITCH[speaker], rng) for label in labels]
        soundfile.write(folder / f"u{number}.wav", np.concatenate(parts), SAMPLE_RATE)
        manifest.append(
            {
                "id": f"u{number}",
                "path": f"u{number}.wav",
                "speaker": speaker,
                "source": ["low", "high"][number % 8 // 4],
            }
        )
        times = [[label, round(0.1 * i, 2), round(0.1 * (i + 1), 2)] for i, label in enumerate(labels)]
        phones.append({"id": f"u{number}", "aligner": ["MFA", "hand-made"][number % 2], "phones": times})
        words.append(f"u{number} 1 0.1 1.0 {''.join(labels[1:-1])}")
    for name, rows in (("dev", manifest), ("phones", phones)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "words.ctm").write_text("\n".join(words), encoding="utf-8")
    mfcc_tokenizer(8).save(folder / "coarse")
    mfcc_tokenizer(24).save(folder / "fine")
    return folder


def tones(label: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    noise = 0.001 * rng.standard_normal(time.size)
    if label == "SIL":
        return noise
    pitch *= rng.uniform(0.95, 1.05)
    harmonics = pitch * np.arange(1, int(4000 / pitch))
    gains = sum(np.exp(-(((harmonics - formant) / 150) ** 2)) for formant in PHONES[label])
    return noise + 0.1 * (gains[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time)).sum(axis=0)


def speech_of(corpus: Path, *, aligned: bool = True, speakers: bool = True) -> Dataset:
    rows = [json.loads(line) for line in (corpus / "phones.jsonl").read_text(encoding="utf-8").splitlines()]
    utterances = tuple(
        Utterance(row["id"], corpus / f"{row['id']}.wav", list(PITCH)[i % 8] if speakers else None)
        for i, row in enumerate(rows)
    )
    alignments = {
        row["id"]: Alignment(tuple(Interval(*interval) for interval in row["phones"])) for row in rows if aligned
    }
    return Dataset(utterances, alignments, NoiseSources(utterances))


def test_everything_of_one_tokenizer(corpus: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    report = evaluate(
        [mfcc_tokenizer(24)],
        speech_of(corpus),
        SMALL,
        output=tmp_path / "out",
        progress=lambda task, done, total, note="": stages.append(task),
    )
    (found,) = report["tokenizers"]
    assert set(found["metrics"]) == {metric.name for metric in METRICS} - {"similarity", "resynthesis"}
    assert list(found["left_out"]) == ["similarity", "resynthesis"]
    value = {
        name: figure["value"] for family in found["metrics"].values() for name, figure in family["figures"].items()
    }
    assert value["pnmi"] > 0.5
    assert value["phone_purity"] > 0.6
    assert value["phone_within_features"] < 15
    assert value["phone_within_features"] < value["phone_within_tokens"] <= 50
    assert value["speaker_features"] < 35
    assert value["probe_chance"] == 1 / 8
    assert {value["probe_accuracy_tokens"], value["probe_accuracy_features"]} <= {n / 32 for n in range(33)}
    assert value["mfcc_features"] > value["primary_tokens"] > value["chance"]
    assert value["3gram_bits_per_token"] > 0
    assert value["ued_mean_white_10"] > 0
    assert 0 < value["silence_share"] < 0.5
    assert value["hours"] == pytest.approx(32 * 59 / 50 / 3600)
    # A quarter of the utterances is held out, which leaves the probe fewer than eight speakers.
    assert found["metrics"]["probe"]["drawn"].endswith("speakers, too few for intervals")
    for family in ("phones", "abx", "robustness", "speaker", "predictability"):
        assert any("low" in figure for figure in found["metrics"][family]["figures"].values()), family
    for family in found["metrics"].values():
        for figure in family["figures"].values():
            assert figure.get("low", figure["value"]) <= figure["high"] if "low" in figure else True
    details = found["metrics"]["robustness"]["details"]["conditions"]["white_10"]
    assert (details["strength"], details["kind"]) == (10.0, "white")
    assert len(found["metrics"]["phones"]["details"]["silence_codes"]) >= 1
    assert any("encoding" in stage for stage in stages)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8")) == report
    table = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "| pnmi | " in table
    assert "similarity left out: the encoder has no layers" in table


def test_a_run_goes_on_where_it_was(corpus: Path, tmp_path: Path) -> None:
    speech, tokenizer = speech_of(corpus), mfcc_tokenizer(8)

    def figures(settings: EvaluationOptions = SMALL, speech: Dataset = speech) -> dict[str, Any]:
        report = evaluate([tokenizer], speech, settings, ["phones", "predictability"], output=tmp_path, overwrite=True)
        return report["tokenizers"][0]["metrics"]["phones"]["figures"]

    first = figures()
    (kept,) = tmp_path.glob("partial/phones-*.json")
    assert figures() == first
    # Only a run that reads what was kept can see this.
    kept.write_text(kept.read_text(encoding="utf-8").replace('"pnmi": 0.', '"pnmi": 7.'), encoding="utf-8")
    assert figures()["pnmi"]["value"] > 7
    other = Dataset(speech.utterances[1:], speech.alignments, speech.noise_sources)
    for changed in (figures(EvaluationOptions(draws=20, merges=10, seed=1)), figures(speech=other)):
        assert changed["pnmi"]["value"] < 1
    kept.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"damaged .* delete it to measure again"):
        figures()


def test_two_tokenizers_side_by_side(corpus: Path) -> None:
    report = evaluate([mfcc_tokenizer(4), mfcc_tokenizer(24)], speech_of(corpus), SMALL, ["phones", "similarity"])
    apart = report["differences"]["mfcc-24-0"]["phones"]
    first, second = (one["metrics"]["phones"]["figures"]["pnmi"]["value"] for one in report["tokenizers"])
    assert apart["pnmi"]["value"] == pytest.approx(second - first)
    assert 0 < apart["pnmi"]["low"] < apart["pnmi"]["value"] < apart["pnmi"]["high"]
    # Both read the same MFCC.
    assert report["similarity"]["mfcc-24-0"]["cka"] == pytest.approx(1.0)
    assert [one["left_out"] for one in report["tokenizers"]] == [{}, {}]
    with pytest.raises(ValueError, match="different names"):
        evaluate([mfcc_tokenizer(4), mfcc_tokenizer(4)], speech_of(corpus), SMALL)


def test_what_the_data_do_not_allow_is_left_out_or_refused(corpus: Path) -> None:
    bare = speech_of(corpus, aligned=False, speakers=False)
    (found,) = evaluate([mfcc_tokenizer(8)], bare, SMALL)["tokenizers"]
    assert set(found["metrics"]) == {"stats", "robustness", "predictability"}
    assert "--alignments" in found["left_out"]["phones"]
    assert "two speakers" in found["left_out"]["speaker"]
    for metric in ("phones", "abx", "speaker", "probe", "similarity"):
        with pytest.raises(ValueError, match=f"{metric} cannot be measured"):
            evaluate([mfcc_tokenizer(8)], bare, SMALL, [metric])
    aligned = speech_of(corpus, speakers=False)
    with pytest.raises(ValueError, match="abx cannot be measured: speakers are not known"):
        evaluate([mfcc_tokenizer(8)], aligned, SMALL, ["abx"])
    with pytest.raises(ValueError, match="no utterances"):
        evaluate([mfcc_tokenizer(8)], Dataset((), {}, NoiseSources()), SMALL)
    for wrong in ({"draws": 0}, {"order": 0}, {"tolerance": 0.0}, {"merges": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EvaluationOptions(**wrong)


def test_a_file_that_cannot_be_read_stops_the_run(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.wav").write_bytes(b"not audio")
    speech = speech_of(corpus)
    broken = Dataset(speech.utterances, {}, NoiseSources(speech.utterances, noise=[tmp_path / "noise.wav"]))
    settings = EvaluationOptions(conditions=(Condition("noise", 0.0),), robustness_utterances=1)
    with pytest.raises(AudioError, match=r"noise\.wav"):
        evaluate([mfcc_tokenizer(8)], broken, settings)


def test_a_recording_that_cannot_be_read_is_skipped_and_listed(corpus: Path, tmp_path: Path) -> None:
    speech = speech_of(corpus)
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    bad = replace(speech.utterances[3], path=tmp_path / "broken.wav")
    utterances = (*speech.utterances[:3], bad, *speech.utterances[4:])
    dataset = Dataset(utterances, speech.alignments, NoiseSources(utterances))
    options = replace(SMALL, robustness_utterances=32, conditions=(Condition("babble", 10.0),))
    for _ in range(2):
        # The second time the results are partial ones, which know what they skipped.
        report = evaluate([mfcc_tokenizer(8)], dataset, options, output=tmp_path / "out")
        assert list(report["skipped"]) == ["u3"]
        assert "broken.wav" in report["skipped"]["u3"]
    found = report["tokenizers"][0]["metrics"]
    assert found["stats"]["figures"]["utterances"]["value"] == 31
    assert found["robustness"]["details"]["utterances"] == 31
    assert "- u3: " in (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    # The values are those of the dataset without it.
    without = Dataset(tuple(u for u in utterances if u is not bad), speech.alignments, NoiseSources(utterances))
    expected = evaluate([mfcc_tokenizer(8)], without, options)["tokenizers"][0]["metrics"]
    for metric in ("phones", "stats", "predictability", "robustness"):
        assert found[metric]["figures"] == expected[metric]["figures"], metric
    nothing = Dataset((bad,), {}, NoiseSources())
    with pytest.raises(ValueError, match="no utterance could be read: .*broken.wav"):
        evaluate([mfcc_tokenizer(8)], nothing, options)


def test_intervals_are_over_speakers_and_need_eight_of_them(corpus: Path) -> None:
    speech = speech_of(corpus)

    def pnmi(dataset: Dataset) -> tuple[dict[str, float], str]:
        (found,) = evaluate([mfcc_tokenizer(8)], dataset, SMALL, ["phones"])["tokenizers"]
        return found["metrics"]["phones"]["figures"]["pnmi"], found["metrics"]["phones"]["drawn"]

    eight, drawn = pnmi(speech)
    assert drawn == "8 speakers"
    assert eight["low"] < eight["value"] < eight["high"]
    seven = tuple(u for u in speech.utterances if u.speaker != "speaker-7")
    found, drawn = pnmi(replace(speech, utterances=seven))
    assert drawn == "7 speakers, too few for intervals"
    assert "low" not in found
    # Without speakers the utterances are all that can be drawn.
    found, drawn = pnmi(speech_of(corpus, speakers=False))
    assert drawn == "32 utterances"
    assert found["value"] == eight["value"]


def test_aligners_and_sources_apart(corpus: Path, tmp_path: Path) -> None:
    shown = run(corpus / "fine", "--data", corpus / "dev.jsonl", "--alignments", corpus / "phones.jsonl", "--metrics",
                "phones,speaker", "--draws", "5", "--output", tmp_path / "out")  # fmt: skip
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    metrics = report["tokenizers"][0]["metrics"]
    phones = {name: figure["value"] for name, figure in metrics["phones"]["figures"].items()}
    speech = speech_of(corpus)
    for slug, first in (("mfa", 0), ("hand_made", 1)):
        mine = Dataset(speech.utterances[first::2], speech.alignments, speech.noise_sources)
        alone = evaluate([mfcc_tokenizer(24)], mine, SMALL, ["phones"])["tokenizers"][0]["metrics"]["phones"]["figures"]
        for name in ("pnmi", "pnmi_10ms", "pnmi_corrected", "phone_purity"):
            assert phones[f"{name}_{slug}"] == pytest.approx(alone[name]["value"]), name
    assert metrics["phones"]["details"]["aligner_hand_made"]["utterances"] == 16
    speaker = {name: figure["value"] for name, figure in metrics["speaker"]["figures"].items()}
    assert (speaker["probe_chance"], speaker["probe_chance_low"], speaker["probe_chance_high"]) == (1 / 8, 1 / 4, 1 / 4)
    assert "probe_accuracy_tokens_low" in speaker
    for line in ("PNMI, aligned by hand-made", "speaker probe on tokens, low", "chance, high"):
        assert line in shown


def test_the_command_lists_what_it_skipped_and_exits_with_1(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((corpus / "u0.wav").read_bytes())
    (tmp_path / "b.wav").write_bytes((corpus / "u1.wav").read_bytes())
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    result = CliRunner().invoke(
        app,
        ["evaluate", str(corpus / "fine"), "--data", str(tmp_path), "--metrics", "stats", "-o", str(tmp_path / "out")],
        standalone_mode=False,
    )
    assert result.return_value == FAILED
    assert "warning: skipped c (" in result.output


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_command(corpus: Path, tmp_path: Path) -> None:
    shown = run(
        corpus / "coarse", "--against", corpus / "fine", "--data", corpus / "dev.jsonl", "--alignments",
        corpus / "phones.jsonl", "--words", corpus / "words.ctm", "--metrics", "phones,robustness", "--noise", corpus,
        "--rooms", corpus, "--utterances", "1", "--draws", "10", "--seed", "3", "--output", tmp_path / "out",
    )  # fmt: skip
    table = (tmp_path / "out" / "evaluation.md").read_text(encoding="utf-8")
    assert "| figure | mfcc-8-0 | mfcc-24-0 | mfcc-24-0 - mfcc-8-0 |" in table
    for figure in ("cnmi", "ued_pooled_noise_5", "ued_mean_room", "boundary_r_value"):
        assert f"| {figure} | " in table
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    cells = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()]
    lines = {label: values for label, *values in cells}
    pnmi = [one["metrics"]["phones"]["figures"]["pnmi"] for one in report["tokenizers"]]
    expected = [f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in pnmi]
    assert lines["PNMI"] == expected
    assert {"phones (8 speakers)", "robustness (1 speakers, too few for intervals)"} <= lines.keys()
    assert {"CNMI", "UED recorded room, %", "R-value of boundaries"} <= lines.keys()
    assert "all values in evaluation.json" in shown
    assert (report["settings"]["seed"], report["settings"]["draws"]) == (3, 10)
    assert re.fullmatch("[0-9a-f]{16}", report["speech"].pop("digest"))
    assert report["speech"] == {
        "utterances": 32,
        "aligned": 32,
        "speakers": 8,
        "aligners": {"MFA": 16, "hand-made": 16},
        "sources": {"low": 16, "high": 16},
    }
    assert report["tokenizers"][0]["metrics"]["robustness"]["drawn"] == "1 speakers, too few for intervals"


def test_another_evaluation_is_not_replaced(corpus: Path, tmp_path: Path) -> None:
    """More metrics, other draws and further tokenizers are the same evaluation."""
    out, result = tmp_path / "out", tmp_path / "out/evaluation.json"
    mfcc_tokenizer(8, books=2).save(tmp_path / "two")

    def measure(tokenizer: Path, *options: object, data: Path = corpus / "dev.jsonl") -> None:
        run(tokenizer, "--data", data, "--metrics", "stats", "--output", out, "--quiet", *options)

    measure(tmp_path / "two")
    measure(tmp_path / "two", "--against", corpus / "fine", "--draws", "5")
    lines = (corpus / "dev.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    # A manifest elsewhere, of some of the same recordings.
    rows = [json.loads(line) for line in lines[1:]]
    less = "".join(json.dumps(row | {"path": str(corpus / row["path"])}) + "\n" for row in rows)
    (tmp_path / "less.jsonl").write_text(less, encoding="utf-8")

    def refused(message: str, *options: object, data: Path = corpus / "dev.jsonl") -> None:
        kept = result.read_bytes()
        with pytest.raises(ValueError, match=f"out: holds an evaluation of {message}.*add --overwrite"):
            measure(tmp_path / "two", *options, data=data)
        assert result.read_bytes() == kept

    refused("other speech; choose", "--against", corpus / "fine", data=tmp_path / "less.jsonl")
    refused("another tokenizer, mfcc-24-0; choose")
    measure(tmp_path / "two", "--overwrite")
    refused("another codebook, the primary one; choose", "--codebook", "auxiliary")
    measure(corpus / "fine", "--overwrite")
    assert [one["name"] for one in json.loads(result.read_bytes())["tokenizers"]] == ["mfcc-24-0"]
    result.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation.json: damaged, or no evaluation of spintok"):
        measure(corpus / "fine")


def test_the_command_passes_settings_on(corpus: Path, tmp_path: Path) -> None:
    found = {}
    for name, options in {
        "usual": [],
        "other": ["--unit", "phoneme", "--tolerance", "0.05", "--codebook", "auxiliary"],
    }.items():
        tokenizer = tmp_path / "two"
        mfcc_tokenizer(8, books=2).save(tokenizer)
        run(tokenizer, "--data", corpus / "dev.jsonl", "--alignments", corpus / "phones.jsonl", "--metrics",
            "phones,abx", "--draws", "5", "--output", tmp_path / name, *options)  # fmt: skip
        report = json.loads((tmp_path / name / "evaluation.json").read_text(encoding="utf-8"))
        found[name] = report["tokenizers"][0]["metrics"]
    assert found["usual"]["abx"]["details"]["unit"] == "triphone"
    assert found["other"]["abx"]["details"]["unit"] == "phoneme"
    recalls = [one["phones"]["figures"]["boundary_recall"]["value"] for one in found.values()]
    assert recalls[1] > recalls[0]
    assert found["usual"]["phones"]["figures"]["pnmi"] != found["other"]["phones"]["figures"]["pnmi"]


def test_words_alone_give_characters(corpus: Path, tmp_path: Path) -> None:
    shown = run(corpus / "coarse", "--data", corpus / "dev.jsonl", "--words", corpus / "words.ctm", "--metrics",
                "phones", "--draws", "5", "--output", tmp_path / "out")  # fmt: skip
    assert "CNMI" in shown
    assert "PNMI" not in shown


def test_tokenizers_of_one_name_are_called_by_their_folders(corpus: Path, tmp_path: Path) -> None:
    twin: Tokenizer = mfcc_tokenizer(8)
    twin.save(tmp_path / "twin")
    run(corpus / "coarse", "--against", tmp_path / "twin", "--data", corpus / "dev.jsonl", "--metrics", "stats",
        "--output", tmp_path / "out", "--quiet")  # fmt: skip
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in report["tokenizers"]] == [str(corpus / "coarse"), str(tmp_path / "twin")]
    assert report["differences"][str(tmp_path / "twin")]["stats"]["entropy"] == {"value": 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "phones,beauty"], "unknown metric 'beauty'"),
        (["--metrics", "phones"], "phones cannot be measured: neither phones nor words"),
        (["--layers", "x"], "--layers takes numbers"),
        (["--codebook", "auxiliary"], "unknown codebook 'auxiliary'"),
        (["--alignments", "none.ctm"], "none.ctm: no such file"),
        (["--metrics", "probe", "--layers", "3", "--alignments", "PHONES"], "MFCC have no layers"),
    ],
)
def test_the_command_refuses(corpus: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [str(corpus / "phones.jsonl") if argument == "PHONES" else argument for argument in arguments]
    with pytest.raises(ValueError, match=message):
        run(corpus / "coarse", "--data", corpus / "dev.jsonl", "--output", tmp_path / "out", *given)


def test_layers_of_an_encoder(corpus: Path) -> None:
    settings = EvaluationOptions(draws=5, layers=(1, 2), probe_frames=200)
    report = evaluate([small_encoder()], speech_of(corpus), settings, ["probe", "similarity"])
    found = report["tokenizers"][0]["metrics"]
    assert {"layer_1_features", "layer_1_kmeans", "layer_2_features", "primary_tokens"} < set(found["probe"]["figures"])
    similarity = found["similarity"]
    assert similarity["figures"]["cka_layer_2"]["value"] == pytest.approx(1.0)
    assert 0 < similarity["figures"]["svcca_layer_1"]["value"] < 1
    assert similarity["details"]["layers"] == [1, 2]
