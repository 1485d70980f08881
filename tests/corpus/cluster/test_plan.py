"""What a corpus will take: the arithmetic, and the command."""

from pathlib import Path

import pytest

from spintok.cli import main
from spintok.corpus import CorpusError, Options
from spintok.corpus.cluster.plan import Plan, measure
from spintok.corpus.tokens import token_writer
from spintok.data.manifest import Utterance


def test_rows_are_worked_out_from_the_measurement() -> None:
    # 100 s of audio: 2 s to read, 8 s in the model, 5,000 bytes.
    cpu = Plan(10, 1.0, 100.0, 2.0, 8.0, 5000, threads=2, overlapped=False)
    assert cpu.speed == 10.0
    row = cpu.row(1000.0, price=0.5)
    assert (row.worker_hours, row.cost) == (100.0, 50.0)
    assert row.gigabytes == pytest.approx(1000 * 3600 * 50 / 1e9)
    assert cpu.bottleneck == "the model"
    # On a GPU two threads read 100 s in 1 s while the model takes 0.5 s.
    gpu = Plan(10, 1.0, 100.0, 2.0, 0.5, 5000, threads=2, overlapped=True)
    assert (gpu.speed, gpu.bottleneck) == (100.0, "reading audio")


def test_a_corpus_is_measured(mfcc, recordings, tmp_path: Path) -> None:
    bad = Utterance("bad", tmp_path / "bad.wav")
    bad.path.write_bytes(b"no audio")
    options = Options()
    plan = measure(token_writer(mfcc, options), mfcc, [*recordings, bad], threads=2)
    assert plan.files == 6
    # 2000 + 700 n samples for n = 0 ... 4; the bad file has none.
    assert plan.hours * 3600 == pytest.approx((5 * 2000 + 700 * 10) / 16000)
    assert 0 < plan.sample <= plan.hours * 3600
    assert min(plan.reading, plan.encoding, plan.size) > 0
    with pytest.raises(CorpusError, match="nothing to plan with"):
        measure(token_writer(mfcc, options), mfcc, [bad], threads=2)


def test_the_command_writes_nothing(speech: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["encode", str(speech), "out", "-t", "mfcc-kmeans-100", "--plan", "--price", "2"]
    monkeypatch.setattr("sys.argv", ["spintok", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "6 files" in printed
    assert "10,000,000.00" in printed
    assert "cost" in printed
    assert not Path("out").exists()
