"""The benchmark of decoding checks that streams equal the whole before it shows times."""

import pytest
from small_decoders import untrained_decoder

import spintok
from benchmarks import decode

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


def test_the_benchmark_compares_first(speech, tmp_path, capsys, monkeypatch) -> None:
    untrained_decoder(spintok.load("mfcc-kmeans-100"), "primary").save(tmp_path)
    options = [str(speech / "fred_yes.flac"), "--decoder", str(tmp_path), "--tokenizer", "mfcc-kmeans-100"]
    decode.main([*options, "--rounds", "1"])
    out = capsys.readouterr().out
    for name in ("decode", "stream, 4 frames at once", "the network", "the synthesis", "encode"):
        assert f"\n{name} " in out
    monkeypatch.setattr(decode, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="no figures: a stream differs from the whole"):
        decode.main(options)
