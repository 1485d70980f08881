"""``spintok export`` as it is typed."""

import json

import numpy as np
import pytest
import torch

from spintok.corpus.token_formats import Record
from spintok.export.packed.indexed import IndexedDataset
from spintok.export.packed.reader import Windows, read_packed
from spintok.export.targets import FILE_TARGETS, read_export
from spintok.export.vocabulary import Vocabulary
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.mfcc import Mfcc
from spintok.tokenizer import Tokenizer
from tests.export.test_hf_tokenizer import make_base
from tests.export.token_folders import make_records, write_folder

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("target", FILE_TARGETS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_file_target(target, run, folder, records, tmp_path, same):
    code, out, err = run(folder, tmp_path / "out", "--to", target)
    assert (code, err) == (0, "")
    assert f"{target}, 24 utterances" in out
    assert "written" in out
    same(list(read_export(tmp_path / "out")[1]), records)
    code, out, _ = run(folder, tmp_path / "out", "--to", target)
    assert code == 0
    assert "there already" in out


def test_options_of_files(run, folder, tmp_path):
    others = [Record(f"other-{r.key}", r.file_name, r.tokens, r.speaker) for r in make_records(3, count=4)]
    more = write_folder(tmp_path / "more", others)
    code, out, _ = run(folder, more, tmp_path / "out", "--to", "npz", "--no-dedup", "--shard-size", 5, "--skip-empty")
    assert code == 0
    assert "28 utterances" in out
    header, found = read_export(tmp_path / "out")
    assert not header.dedup
    assert len(list(found)) == 28
    assert len(list((tmp_path / "out").glob("*.npz"))) == 6
    assert run(folder, tmp_path / "out", "--to", "npz", "--overwrite", "-q") == (0, "", "")


def test_packed_windows(run, folder, tmp_path):
    arguments = ("--to", "packed", "--window", 32, "--shuffle", 1, "--split", "file", "--validation", 0.25)
    code, _, _ = run(folder, tmp_path / "out", *arguments, "--dtype", "uint32", "--form", "frames")
    assert code == 0
    assert len(Windows(tmp_path / "out/train")) > 0 < len(Windows(tmp_path / "out/validation"))
    assert IndexedDataset(tmp_path / "out/train").dtype == np.int32


@pytest.mark.parametrize("task", ["asr", "tts"])
def test_from_tokens_to_a_data_set_with_text(task, run, folder, records, tmp_path, same):
    make_base("byte-level").save_pretrained(tmp_path / "base")
    options = ("--to", "hf-tokenizer", "--base", tmp_path / "base", "--special", "asr=<asr>")
    code, out, _ = run(folder, tmp_path / "lm", *options)
    assert code == 0
    vocabulary = Vocabulary.load(tmp_path / "lm")
    assert f"{vocabulary.size:,} tokens, speech from {vocabulary.first_id:,} on" in out
    assert vocabulary.specials["asr"] == "<asr>"
    texts = {record.key: f"the words of {number}" for number, record in enumerate(records)}
    lines = [json.dumps({"key": key, "text": text}) for key, text in texts.items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = ("--vocabulary", tmp_path / "lm", "--task", task, "--text", tmp_path / "texts.jsonl")
    assert run(folder, tmp_path / "out", "--to", "packed", *options)[0] == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "lm")
    for ids, record in zip(IndexedDataset(tmp_path / "out/tokens"), records, strict=True):
        speech = "".join(f"<|s_{unit}|>" for unit in record.tokens["primary"].units)
        expected = {
            "asr": f"<asr>[SOS]{speech}[EOS][SOT]{texts[record.key]}[EOT]",
            "tts": f"[TTS][SOT]{texts[record.key]}[EOT][SOS]{speech}[EOS]",
        }
        assert tokenizer.decode(ids.tolist()) == expected[task]
    same(list(read_packed(tmp_path / "out")[1]), records)
    (tmp_path / "texts.jsonl").write_text("\n".join(lines[:-1]), encoding="utf-8")
    code, _, err = run(folder, tmp_path / "half", "--to", "packed", *options)
    assert code == 2
    assert "no text for the utterance" in err
    assert not (tmp_path / "half").exists()


def test_bpe_then_packed_with_it(run, folder, records, tmp_path, same):
    code, out, _ = run(folder, tmp_path / "units", "--to", "bpe", "--vocab-size", 101, "--vocab-size", 103)
    assert code == 0
    assert "compression" in out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["100", "101", "103"]
    assert run(folder, tmp_path / "out", "--to", "packed", "--bpe", tmp_path / "units/bpe-103")[0] == 0
    same(list(read_packed(tmp_path / "out")[1]), records)
    make_base("bpe").save_pretrained(tmp_path / "base")
    options = ("--to", "hf-tokenizer", "--base", tmp_path / "base", "--template", "private-use")
    assert run(folder, tmp_path / "lm", *options, "--bpe", tmp_path / "units/bpe-103")[0] == 0
    assert Vocabulary.load(tmp_path / "lm").codebooks == {"bpe": 103}


def test_tokens_of_a_tokenizer_that_has_encoded_nothing_yet(run, tmp_path):
    torch.manual_seed(0)
    mfcc = Mfcc()
    book = Codebook(CodebookConfig("primary", 20, 39, 39, "l2", projection=False))
    tokenizer = Tokenizer(mfcc, [book], name="tiny")
    tokenizer.save(tmp_path / "tiny")
    make_base("wordlevel").save_pretrained(tmp_path / "base")
    options = ("--to", "hf-tokenizer", "--base", tmp_path / "base", "--tokenizer", tmp_path / "tiny", "--durations", 2)
    assert run(tmp_path / "lm", *options)[0] == 0
    vocabulary = Vocabulary.load(tmp_path / "lm")
    assert (vocabulary.fingerprint, vocabulary.codebooks, vocabulary.durations) == (
        tokenizer.fingerprint,
        {"primary": 20},
        2,
    )


def test_errors_are_one_line(run, folder, tmp_path):
    out = tmp_path / "out"
    cases = [
        (
            (folder, out, "--to", "gslm", "--window", 8),
            "--window is for --to packed or interleaved or dialogue or monologue, not for gslm",
        ),
        ((folder, out, "--to", "packed", "--no-dedup"), "--dedup is for --to slamkit or"),
        ((folder, out, "--to", "hf-tokenizer"), "--base FOLDER"),
        ((out, "--to", "hf-tokenizer", "--base", folder), "either token folders or --tokenizer"),
        ((out, "--to", "npz"), "name at least one folder"),
        ((tmp_path / "none", out, "--to", "npz"), "no such folder"),
        ((folder, out, "--to", "bpe"), "give at least one size"),
        ((folder, out, "--to", "packed", "--task", "asr"), "asr needs transcripts"),
        ((folder, out, "--to", "packed", "--codebook", "a", "--codebook", "b"), "holds one codebook"),
        ((folder, out, "--to", "fairseq", "--dedup"), "durations would be lost"),
        ((folder, out, "--to", "npz", "--shard-size", 0), "at least 1 utterance"),
    ]
    for arguments, message in cases:
        code, printed, err = run(*arguments)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
        assert printed == ""
        assert not out.exists()
