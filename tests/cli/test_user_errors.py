"""Mistakes of users: each is one line that says what is wrong and how to mend it."""

import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import call, run

from spintok import cli

FAST = ("-t", "mfcc-kmeans-100")


@pytest.fixture
def here(tmp_path, speech, monkeypatch):
    """A working folder with a recording, a folder of it, and its tokens by another name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wav").mkdir()
    (tmp_path / "a.flac").write_bytes((speech / "fred_yes.flac").read_bytes())
    (tmp_path / "wav" / "a.flac").write_bytes((speech / "fred_yes.flac").read_bytes())
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "list.tsv").write_text("a.flac\t14080\n")
    with tarfile.open(tmp_path / "wav.tar.gz", "w:gz") as tar:
        tar.add("a.flac")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("encode a.flac --stats", "--stats is for a folder of tokens, but those of one file go to standard output"),
        ("serve --origin https://example.org/", "--origin must be as browsers send it"),
        ("encode a.flac --format km", "--format km is for a folder of tokens"),
        ("encode a.flac --shard-size 3", "--shard-size is for a folder of tokens"),
        ("encode wav --price 3", "add --plan"),
        ("encode wav --lease-seconds 3", "add --shared"),
        ("encode wav --workers 0", "workers must be at least 1, got 0"),
        ("encode wav --format nothing", "'--format': 'nothing' is not one of 'jsonl'"),
        ("encode list.tsv", "list.tsv: the first line must be the folder of the files"),
        ("encode wav.tar.gz", "wav.tar.gz: it is compressed, so its members cannot be read one by one: decompress it"),
        ("encode cut://0,-1::a.flac", "not an address"),
        ("encode wav notes.txt/out", "notes.txt/out: part of this path is a file, not a folder"),
        ("encode what://bucket/wav out", "Protocol not known: what; there are s3://"),
        ("encode wav -t torchaudio:HUBERT_BASE", "is an encoder without a codebook"),
        ("stats nowhere", "nowhere: no such folder"),
        ("stats wav", "wav: no tokenizer.json, so this is not a folder of tokens"),
        ("verify a.flac", "a.flac: not a folder; name a folder of tokens that spintok encode wrote"),
        ("report nowhere", "nowhere: no such file or folder"),
        ("report a.flac -o nowhere/r.html -t mfcc-kmeans-100", "nowhere: no such file or folder"),
        ("report a.flac -o wav --overwrite -t mfcc-kmeans-100", "wav: is a folder; name a file to write"),
        ("report s3://bucket/a.flac", "s3://bucket/a.flac: this command takes local paths only"),
        ("export wav s3://bucket/out --to parquet", "s3://bucket/out: this command takes local paths only"),
        ("train mfcc_kmeans_100 --data wav --output notes.txt", "notes.txt: a file of this name exists where a folder"),
    ],
)
def test_a_mistake_is_one_line(capsys, here, command, message) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = run(capsys, *command.split())
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert message in err
    assert sorted(here.rglob("*")) == before


def test_standard_input_is_called_so(capsys, standard_input) -> None:
    standard_input(b"hello")
    assert "error: standard input: libsndfile cannot read it" in run(capsys, "encode", "-", *FAST)[2]


def test_an_audio_file_is_not_taken_for_raw_samples(capsys, here, standard_input) -> None:
    standard_input((here / "a.flac").read_bytes())
    code, out, err = run(capsys, "stream", *FAST)
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert "standard input is an audio file, not raw samples" in err


def test_an_export_does_not_wait_for_the_hub(capsys, here, monkeypatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("transformers")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)

    def away(*arguments, **settings):
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub.HfApi, "model_info", away)
    command = ("export", "out", "--to", "hf-tokenizer", "--base", "nowhere", *FAST)
    code, out, err = run(capsys, *command)
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert "nowhere: no such folder here, and https://huggingface.co cannot be reached" in err


def test_info_follows_the_default_of_the_other_commands(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SPINTOK_TOKENIZER", "mfcc-kmeans-100")
    assert run(capsys, "info")[1].split()[:2] == ["name", "mfcc-kmeans-100"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_said_in_words(capsys, monkeypatch) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        code = call("list")
        with suppress(OSError):
            full.close()
    assert code == cli.USAGE
    assert capsys.readouterr().err == "spintok: error: No space left on device\n"
