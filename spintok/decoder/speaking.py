"""``Tokenizer.decode``."""

import os

from numpy.typing import ArrayLike
from torch import Tensor

from spintok.decoder.decoder import Decoder
from spintok.decoder.loading import find_decoder, load_decoder
from spintok.models.codebook import Codebook
from spintok.models.reduced import Precision
from spintok.tokens import Tokens

__all__ = ["Speaking"]


class Speaking:
    """The part of ``Tokenizer`` that turns tokens into speech."""

    name: str
    latency: float | None
    precision: Precision

    @property
    def fingerprint(self) -> str:
        raise NotImplementedError

    def codebook(self, name: str | None = None) -> Codebook:
        raise NotImplementedError

    def decode(
        self,
        tokens: Tokens | ArrayLike | Tensor,
        voice: str | None = None,
        *,
        codebook: str | None = None,
        decoder: Decoder | str | os.PathLike[str] | None = None,
    ) -> Tensor:
        """Speech (S,) float32 at 16 kHz: what the tokens say, in another voice than that of the recording.

        Args:
            tokens: tokens of this tokenizer, or codes (T,), one for each frame.
            voice: one of ``decoder.voices``; its first by default.
            codebook: the codebook of the tokens; the primary by default.
            decoder: a decoder, or its name or folder; by default the one that ships with spintok for this codebook.

        Raises:
            CodebookMismatchError: the decoder reads other tokens.
            ValueError: there is no decoder for this codebook, codes are outside it, or the voice is unknown.
        """
        name = self.codebook(codebook).config.name
        if decoder is None:
            decoder = find_decoder(self.name, self.fingerprint, name, self.latency, self.precision)
        elif not isinstance(decoder, Decoder):
            decoder = load_decoder(decoder)
        decoder.check(self.fingerprint, name)
        return decoder.decode(tokens, voice)
