"""What the README promises of ``spintok.evaluate``, and what its help says of the metrics."""

from typer.testing import CliRunner

import spintok.evaluate
from spintok.cli.app import app


def test_every_promised_function_is_exported() -> None:
    for name in spintok.evaluate.__all__:
        assert getattr(spintok.evaluate, name).__doc__, name
    promised = {"PhoneScore", "boundary_counts", "abx", "ued", "robustness", "probe_speaker", "speaker_information"}
    promised |= {"predictability", "sweep", "Moments", "compare_tokenizers", "replicates", "difference", "evaluate"}
    assert promised <= set(spintok.evaluate.__all__)


def test_the_help_names_every_metric() -> None:
    shown = " ".join(CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "400"}).output.split())
    listed = shown[shown.index("The metrics to compute, separated by commas:") :]
    assert ", ".join(metric.name for metric in spintok.evaluate.METRICS) in listed
