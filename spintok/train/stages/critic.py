"""The critic of a decoder in training: a network that tells natural acoustic parameters from predicted ones.

A regression predicts the mean of many possible envelopes, which is smoother than any of them and sounds muffled. A
decoder that has to pass for natural, too, predicts one of them. The game is that of least squares (Mao et al. 2017), a
step of both players at once; the decoder also matches the features of the critic (Larsen et al. 2016), and the critic
knows the codes, by projection (Miyato and Koyama 2018). Only training has it: a decoder is saved without.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.decoder.acoustics import APERIODICITY, CEPSTRUM, LOG_F0, VOICING

__all__ = ["Critic", "Verdict"]

_INPUTS = CEPSTRUM + 2
_STRIDE = 4
"""Vectors of parameters, 5 ms each, for each judgement."""


class Verdict(NamedTuple):
    """Sums over the judged places of a batch.

    Attributes:
        places: how many.
        critic: the loss of the critic, whose gradient reaches its weights only.
        decoder: the loss of the decoder, whose gradient reaches the predictions only.
        features: the mean absolute difference of the critic's features, for the decoder too.
    """

    places: int
    critic: Tensor
    decoder: Tensor
    features: Tensor


class Critic(nn.Module):
    """Strided convolutions over 275 ms of standardized parameters, and an embedding of the codes.

    Args:
        codes: K, the number of codewords.
        width: of the features.
    """

    def __init__(self, codes: int, width: int = 128) -> None:
        super().__init__()
        shapes = [(_INPUTS, 7, 2), (width, 5, 2), (width, 5, 1), (width, 5, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel, stride, kernel // 2) for inputs, kernel, stride in shapes
        )
        self.output = nn.Conv1d(width, 1, 3, padding=1)
        self.codes = nn.Embedding(codes, width)
        nn.init.zeros_(self.codes.weight)

    def forward(self, parameters: Tensor, codes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judgements (B, M) of parameters (B, N, _INPUTS), near 1 if they seem natural, and features (B, M', width).

        ``codes`` (B, M) are those at the places of the judgements, which are each fourth vector.
        """
        hidden, features = parameters.transpose(1, 2), []
        for convolution in self.convolutions:
            hidden = F.leaky_relu(convolution(hidden), 0.2)
            features.append(hidden.transpose(1, 2))
        scores: Tensor = self.output(hidden)[:, 0] + (features[-1] * self.codes(codes)).mean(2)
        return scores, features

    def judge(self, predicted: Tensor, natural: Tensor, codes: Tensor, mask: Tensor) -> Verdict:
        """Compare standardized parameters (B, N, PARAMETERS) of codes (B, T); ``mask`` (B, T) is False where padded.

        Log F0 and aperiodicity count where the natural speech has a voice; the voicing itself is not judged.
        """
        steps = natural.shape[1] // codes.shape[1]
        fine = mask.repeat_interleave(steps, 1)
        real, made = (_visible(values, natural, fine) for values in (natural, predicted))
        places = torch.arange(0, natural.shape[1], _STRIDE, device=codes.device) // steps
        codes, mask = codes[:, places], mask[:, places]
        scores, wanted = self(real, codes)
        refused, _ = self(made.detach(), codes)
        fixed = {name: weight.detach() for name, weight in self.named_parameters()}
        passed, found = torch.func.functional_call(self, fixed, (made, codes))
        judged = [fine[:, ::2], *[mask] * (len(found) - 1)]
        differences = [
            (one - other.detach()).abs()[where].mean(1).sum() * (stride / _STRIDE)
            for one, other, where, stride in zip(found, wanted, judged, (2, 4, 4, 4), strict=True)
        ]
        return Verdict(
            int(mask.sum()),
            ((scores - 1).square() + refused.square())[mask].sum(),
            (passed - 1).square()[mask].sum(),
            torch.stack(differences).mean(),
        )


def _visible(values: Tensor, natural: Tensor, mask: Tensor) -> Tensor:
    """What the critic sees of standardized parameters (B, N, PARAMETERS): (B, N, _INPUTS)."""
    voiced = natural[:, :, VOICING, None]
    places = [values[:, :, :CEPSTRUM], values[:, :, LOG_F0, None] * voiced, values[:, :, APERIODICITY, None] * voiced]
    return torch.cat(places, 2) * mask[:, :, None]
