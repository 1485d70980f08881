"""``spintok decode``: folders, pipes, and the tokens that it refuses."""

import io
import json
import sys

import numpy as np
import pytest
import soundfile
from command_line import run
from small_decoders import untrained_decoder

import spintok
from spintok import cli
from spintok.corpus.token_formats import ShardError
from spintok.corpus.token_line import read_token_line, token_line
from spintok.data.audio import read
from spintok.decoder import Decoder, Source, load_decoder
from spintok.frames import num_samples


@pytest.fixture(scope="module")
def mfcc():
    return spintok.load("mfcc-kmeans-100")


@pytest.fixture(scope="module")
def voice(tmp_path_factory, mfcc):
    folder = tmp_path_factory.mktemp("voice")
    Decoder(Source(mfcc.name, mfcc.fingerprint, "primary", 100), ["anna", "beth"], name="two").save(folder)
    return folder


def test_a_token_folder_becomes_a_folder_of_speech(capsys, tmp_path, speech, mfcc, voice) -> None:
    assert run(capsys, "encode", speech, tmp_path / "tokens", "-t", "mfcc-kmeans-100", "-q")[0] == 0
    code, out, err = run(capsys, "decode", tmp_path / "tokens", tmp_path / "wav", "--decoder", voice)
    assert code == 0, err
    assert "6 files by decoder two of mfcc-kmeans-100" in out
    for path in speech.glob("*.flac"):
        samples, rate = soundfile.read(tmp_path / "wav" / f"{path.stem}.wav")
        tokens = mfcc.encode(path)
        assert (rate, len(samples)) == (16_000, num_samples(tokens.num_frames))
        expected = mfcc.decode(tokens, decoder=voice).numpy()
        np.testing.assert_allclose(samples, expected, atol=1 / 32768)
    code, _, _ = run(capsys, "decode", tmp_path / "tokens", tmp_path / "p", "--decoder", voice, "--predict-durations")
    assert code == 0
    again, _ = soundfile.read(tmp_path / "p/fred_yes.wav")
    units = mfcc.encode(speech / "fred_yes.flac").units
    assert len(again) == len(load_decoder(voice).decode_units(units))


def test_a_line_of_tokens_goes_through_a_pipe(capsysbinary, monkeypatch, speech, mfcc, voice) -> None:
    path = speech / "fred_yes.flac"
    for options in ([], ["--no-dedup"]):
        code, line, _ = run(capsysbinary, "encode", path, "-t", "mfcc-kmeans-100", *options)
        assert code == 0
        monkeypatch.setattr(sys, "stdin", io.StringIO(line.decode()))
        code, wav, err = run(capsysbinary, "decode", "-", "--decoder", voice, "--voice", "beth")
        assert code == 0, err
        samples, _ = soundfile.read(io.BytesIO(wav))
        expected = mfcc.decode(mfcc.encode(path), "beth", decoder=voice).numpy()
        np.testing.assert_allclose(samples, expected, atol=1 / 32768)


def test_a_line_of_tokens_says_what_made_it(mfcc, speech) -> None:
    tokens = mfcc.encode(speech / "fred_yes.flac")
    for dedup in (True, False):
        line = token_line(mfcc, {"primary": tokens}, dedup=dedup)
        found = read_token_line(line)
        assert (found.tokenizer, found.fingerprint) == (mfcc.name, mfcc.fingerprint)
        assert found.tokens["primary"] == tokens
        assert found.tokens["primary"].num_samples == tokens.num_samples
    row = json.loads(line)
    for damage in ({"units": "x"}, {"codebooks": {}}, {"spintok_line": 2}, {"num_frames": 3}, {"frame_rate": 0}):
        with pytest.raises(ShardError):
            read_token_line(json.dumps(row | damage))
    for text in ("", "1 2 3", "[]", "{}", "[" * 10_000):
        with pytest.raises(ShardError):
            read_token_line(text)


def test_lines_of_a_stream_go_through_a_pipe(capsysbinary, monkeypatch, speech, mfcc, tmp_path) -> None:
    heard = mfcc.at(0.16)
    untrained_decoder(heard, "primary").save(tmp_path / "hum", dtype="float32")
    waveform = read(speech / "fred_yes.flac").numpy()
    (tmp_path / "raw").write_bytes(waveform.tobytes())
    options = ("-t", "mfcc-kmeans-100", "--latency", "160ms", "--format", "f32le", "--header")
    with (tmp_path / "raw").open() as raw:
        monkeypatch.setattr(sys, "stdin", raw)
        code, lines, err = run(capsysbinary, "stream", *options)
    assert code == 0, err
    event = b'{"event": "speech_start", "seconds": 0.1, "found": 0.2}\n'
    for text in (lines, lines + event):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text.decode()))
        code, wav, err = run(capsysbinary, "decode", "-", "--decoder", tmp_path / "hum")
        assert code == 0, err
        samples, _ = soundfile.read(io.BytesIO(wav))
        expected = heard.decode(heard.encode(waveform, 16_000), decoder=tmp_path / "hum").numpy()
        np.testing.assert_allclose(samples, expected, atol=1 / 32768)
    # The tokens of a stream are not those of whole recordings.
    untrained_decoder(mfcc, "primary").save(tmp_path / "other", dtype="float32")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines.decode()))
    code, _, err = run(capsysbinary, "decode", "-", "--decoder", tmp_path / "other")
    assert code != 0
    assert b"fingerprint" in err or b"tokens of" in err
    # Without a header nothing says what they are; and a line may be damaged.
    first, *rest = lines.decode().splitlines(keepends=True)
    newer = json.dumps({**json.loads(first), "spintok_stream": 2}) + "\n"
    for text, message in (
        ("".join(rest), b"option --header"),
        (first + "{\n", b"not the lines of spintok stream"),
        (first + "[1]\n", b"not the lines of spintok stream"),
        (first + '{"codes": [100]}\n', b"another codebook"),
        (newer, b"newer"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code, _, err = run(capsysbinary, "decode", "-", "--decoder", tmp_path / "hum")
        assert code != 0
        assert message in err, err
        assert len(err.splitlines()) == 1


def test_text_is_the_numbers_only(capsys, speech, mfcc, tmp_path) -> None:
    path = speech / "fred_yes.flac"
    code, out, _ = run(capsys, "encode", path, "-t", "mfcc-kmeans-100", "--format", "text")
    assert (code, out.split()) == (0, [str(unit) for unit in mfcc.encode(path).units])
    code, _, err = run(capsys, "encode", speech, tmp_path / "out", "-t", "mfcc-kmeans-100", "--format", "text")
    assert (code, err.count("\n")) == (cli.USAGE, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--voice", "carl"], "unknown voice 'carl'"),
        (["--codebook", "other"], "has no tokens of codebook 'other'"),
        (["--decoder", "nowhere"], "unknown decoder 'nowhere'"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(capsys, monkeypatch, speech, mfcc, voice, options, message) -> None:
    line = token_line(mfcc, {"primary": mfcc.encode(speech / "fred_yes.flac")}, dedup=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    given = options if "--decoder" in options else [*options, "--decoder", voice]
    code, _, err = run(capsys, "decode", "-", *given)
    assert (code, err.count("\n")) == (cli.USAGE, 1)
    assert message in err


def test_tokens_of_another_tokenizer_are_refused(capsys, monkeypatch, speech, mfcc, voice) -> None:
    row = json.loads(token_line(mfcc, {"primary": mfcc.encode(speech / "fred_yes.flac")}, dedup=True))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(row | {"fingerprint": "0" * 64})))
    code, _, err = run(capsys, "decode", "-", "--decoder", voice)
    assert (code, err.count("\n")) == (cli.USAGE, 1)
    assert "these are of 000000000000" in err


def test_a_key_does_not_lead_out_of_the_folder(tmp_path) -> None:
    from spintok.cli.decode import _inside

    assert _inside(tmp_path, "a/b") == tmp_path / "a/b.wav"
    with pytest.raises(ValueError, match="outside"):
        _inside(tmp_path, "../b")


def test_a_folder_that_holds_files_is_written_to_only_when_asked(capsys, tmp_path, speech, voice) -> None:
    (tmp_path / "in").mkdir()
    samples, rate = soundfile.read(speech / "fred_yes.flac")
    soundfile.write(tmp_path / "in" / "fred_yes.wav", samples, rate)
    recording = (tmp_path / "in" / "fred_yes.wav").read_bytes()
    assert run(capsys, "encode", tmp_path / "in", tmp_path / "tokens", "-t", "mfcc-kmeans-100", "-q")[0] == 0
    command = ("decode", tmp_path / "tokens", tmp_path / "in", "--decoder", voice)
    code, _, err = run(capsys, *command)
    assert (code, err.count("\n")) == (cli.USAGE, 1)
    assert "is not empty; name another folder, or add --overwrite" in err
    assert (tmp_path / "in" / "fred_yes.wav").read_bytes() == recording
    assert run(capsys, *command, "--overwrite")[0] == 0
    assert (tmp_path / "in" / "fred_yes.wav").read_bytes() != recording
    assert "is a file" in run(capsys, "decode", tmp_path / "tokens", speech / "fred_yes.flac")[2]
    assert "unknown device 'x'" in run(capsys, "decode", tmp_path / "tokens", tmp_path / "o", "--device", "x")[2]


def test_tokens_without_a_voice_say_how_to_get_one(capsys, monkeypatch, speech, mfcc) -> None:
    slow = mfcc.at(0.32)
    line = token_line(slow, {"primary": slow.encode(speech / "fred_yes.flac")}, dedup=True)
    assert (read_token_line(line).latency, read_token_line(line).precision) == (0.32, "float32")

    def error(text: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code, _, err = run(capsys, "decode", "-")
        assert (code, err.count("\n")) == (cli.USAGE, 1)
        return err

    found = error(line)
    assert "with a latency of 0.32 s" in found
    assert "--init mfcc-kmeans-100 --set codebook=primary --set latency=0.32 --output VOICE" in found
    # A voice ships for tokens of whole recordings.
    row = json.loads(line) | {"tokenizer": "dc-spin-10m-en"}
    assert "encode again without --latency, name the folder" in error(json.dumps(row))
    # One ships for those of 0.32 s.
    row |= {"tokenizer": "dc-spin-stream-10m-en", "latency": 0.16}
    assert "encode again with --latency 0.32s, name the folder" in error(json.dumps(row))
    row |= {"latency": None, "precision": "bfloat16"}
    assert "in bfloat16: encode again without --precision" in error(json.dumps(row))
    assert "has spintok encode failed?" in error("")


def test_keys_that_are_paths_become_files_below_the_folder(tmp_path) -> None:
    from spintok.cli.decode import _inside

    assert _inside(tmp_path, "/data/a.flac") == tmp_path / "data/a.flac.wav"
