from benchmarks import train


def test_the_benchmark_checks_the_loss_and_shows_every_part(speech, capsys) -> None:
    sizes = ["--size", "tiny", "--codebooks", "8", "16", "--seconds", "2"]
    train.main([str(speech), *sizes, "--rounds", "1", "--workers", "0", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "its definition in float64" in out
    for part in ("read", "perturb", "frozen layers", "trained layers", "loss", "backward", "update"):
        assert f"\n{part} " in out
