"""The front end and the transformer layers of an encoder that streams, a chunk of some streams at a time, on the CPU.

Torch's products differ in their rounding with the number of their rows, so with it each stream is computed alone. Here
a stream gets the same bits in any company, and the weights are read once for all of them.
"""

from spintok_kernels.steps.cpu import STEPS, LayerWeights, PackedConvolution, PackedLayers
from spintok_kernels.steps.front_end import BandSettings, FrontEndWeights, PackedFrontEnd, Statistics

__all__ = [
    "STEPS",
    "BandSettings",
    "FrontEndWeights",
    "LayerWeights",
    "PackedConvolution",
    "PackedFrontEnd",
    "PackedLayers",
    "Statistics",
]
