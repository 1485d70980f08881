"""Decoders from folders: those that ship with spintok, and those that a training run wrote."""

import os
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import torch

from spintok.decoder.decoder import Decoder, Source
from spintok.decoder.network import DecoderConfig
from spintok.serialization import DECODER, FolderError, load_weights, read_folder

__all__ = ["find_decoder", "load_decoder", "shipped_decoders"]

_LARGEST = 1 << 20
"""Above every number of codewords; more is a damaged configuration."""


def load_decoder(source: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Decoder:
    """Load a decoder.

    Args:
        source: a folder that ``Decoder.save`` or ``spintok train`` wrote, or the name of a decoder that comes with
            spintok (``shipped_decoders``).
        device: where the network computes.

    Raises:
        FolderError: the folder holds no complete decoder.
        ValueError: an unknown name.
    """
    folder = Path(source)
    if not folder.is_dir():
        shipped = shipped_decoders()
        if str(source) not in shipped:
            raise ValueError(
                f"unknown decoder {str(source)!r}: neither a folder nor one of those that ship with spintok: "
                f"{', '.join(shipped)}"
            )
        folder = shipped[str(source)]
    config, weights = read_folder(folder, DECODER)
    try:
        made = Source(**config["source"])
        if not isinstance(made.size, int) or not 1 <= made.size <= _LARGEST:
            raise ValueError(f"the size of the codebook is {str(made.size)[:80]}")
        voices = [str(voice) for voice in config["voices"]]
        # Nothing is allocated before the sizes are known to fit the weights.
        with torch.device("meta"):
            decoder = Decoder(made, voices, DecoderConfig(**config["network"]), name=str(config["name"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error!r}".splitlines()[0][:300]
        raise FolderError(f"{folder}: config.json does not describe a decoder: {reason}") from None
    load_weights(decoder, weights, folder, FolderError)
    return decoder.to(device)


def shipped_decoders() -> dict[str, Path]:
    """The folder of each decoder that ships with spintok, by name."""
    try:
        place = files("spintok.pretrained")
    except ModuleNotFoundError:
        # Python runs in a checkout and imports spintok from there; ``pretrained`` is beside it.
        place = Path(__file__).parents[2] / "pretrained"
    with as_file(place) as root:
        return {folder.name: folder for folder in sorted(root.glob("decoders/*")) if (folder / "config.json").is_file()}


@lru_cache(maxsize=8)
def find_decoder(
    tokenizer: str, fingerprint: str, codebook: str, latency: float | None = None, precision: str = "float32"
) -> Decoder:
    """The decoder that ships with spintok for the tokens of a tokenizer and codebook.

    Args:
        tokenizer: its name, for the message.
        fingerprint: the fingerprint of the tokenizer.
        codebook: the name of the codebook.
        latency, precision: how the tokens were computed, for the message: seconds (None for whole recordings), and the
            type of the transformer.

    Raises:
        ValueError: there is none; the message says how to get one, or other tokens.
    """
    shipped = [load_decoder(folder) for folder in shipped_decoders().values()]
    for decoder in shipped:
        if (decoder.source.fingerprint, decoder.source.codebook) == (fingerprint, codebook):
            return decoder
    what = f"{tokenizer} ({fingerprint[:12]}), codebook {codebook!r}"
    if precision != "float32":
        raise ValueError(f"no decoder speaks tokens of {what}, in {precision}: encode again without --precision")
    if latency is not None:
        what += f", with a latency of {latency:g} s"
    sources = [one.source for one in shipped if (one.source.tokenizer, one.source.codebook) == (tokenizer, codebook)]
    others = [one.latency for one in sources if one.latency != latency]
    again = ""
    if others:
        how = "without --latency" if others[0] is None else f"with --latency {others[0]:g}s"
        again = f"encode again {how}, "
    settings = f"--set codebook={codebook}" + ("" if latency is None else f" --set latency={latency:g}")
    raise ValueError(
        f"no decoder ships with spintok for {what}: {again}name the folder of a decoder, or train one: "
        f"spintok train voice --data SPEECH --init {tokenizer} {settings} --output VOICE"
    )
