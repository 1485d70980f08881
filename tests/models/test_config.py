import json

import pytest

from spintok.models.config import EncoderConfig


def test_config_round_trip() -> None:
    config = EncoderConfig(layers=9, conv_norm="layer", position_buckets=320)
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 3}, "unknown encoder field colour"),
        ({"conv_strides": [5, 2, 2, 2, 2, 2, 3]}, "step by 480"),
        ({"conv_kernels": [1] * 7}, "read 1"),
        ({"conv_channels": [512]}, "same length"),
        ({"heads": 7}, "multiple of heads"),
        ({"conv_norm": "batch"}, "conv_norm"),
        ({"norm_position": "between"}, "norm_position"),
        ({"projection": False}, "without a projection"),
        ({"dropout": 1.5}, "dropout"),
        ({"width": 0}, "width must be an integer in 1"),
        ({"width": "wide"}, "width must be an integer"),
        ({"width": True}, "width must be an integer"),
        ({"layers": 10**7}, "layers must be"),
        ({"conv_channels": [1 << 30] * 7}, "conv_channels must be"),
        ({"conv_channels": "wide"}, "conv_channels must list"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"waveform_eps": 0}, "above 0"),
        ({"final_norm": True}, "final_norm"),
        ({"final_norm": True, "norm_position": "pre", "feed_forward_output": True}, "feed_forward_output leaves out"),
        ({"feed_forward_output": "yes"}, "feed_forward_output must be true or false"),
        ({"position_buckets": 3}, "position_buckets"),
        ({"projection": 1}, "true or false"),
    ],
)
def test_config_errors(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig.from_dict({**EncoderConfig().to_dict(), **change})
