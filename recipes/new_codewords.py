"""New codewords for every codebook of a tokenizer: K-means on its embeddings, nearly without those of silence.

    python recipes/new_codewords.py adapt/ speech.jsonl start/

The projections stay. Of the frames in pauses one in fifty counts, so few codewords mean silence. Spin then starts from
the result with ``keep`` in its codebooks.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from spintok.data.audio import read
from spintok.data.manifest import scan
from spintok.loading import load
from spintok.models.encoder import Encoder
from spintok.train.batching.pauses import pauses

SILENCE = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a name or folder")
    parser.add_argument("speech", type=Path, help="a folder or manifest of speech")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument("--utterances", type=int, default=300, help="how many to cluster")
    parser.add_argument("--iterations", type=int, default=15, help="iterations of K-means")
    options = parser.parse_args()
    tokenizer = load(options.tokenizer)
    if not isinstance(tokenizer.encoder, Encoder):
        parser.error(f"{options.tokenizer} has no transformer")
    utterances = scan(options.speech)
    found = []
    for utterance in utterances[:: max(1, len(utterances) // options.utterances)]:
        waveform = read(utterance.path)
        with torch.no_grad():
            features = tokenizer.encoder.hidden_states(waveform[None], layers=[tokenizer.layer])[0][0][0]
        quiet = torch.from_numpy(pauses(waveform))
        found += [features[~quiet], features[quiet][::SILENCE]]
    features = torch.cat(found)
    generator = torch.Generator().manual_seed(0)
    for book in tokenizer.codebooks.values():
        with torch.no_grad():
            book.codewords.copy_(clusters(book.embed(features), book.config.size, options.iterations, generator))
    tokenizer.save(options.output)


def clusters(z: Tensor, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Centres (``size``, E) of unit length of embeddings (N, E) of unit length, by cosine: spherical K-means.

    A cluster that becomes empty starts again at one of the embeddings.
    """
    centres = z[torch.randperm(len(z), generator=generator)[:size]]
    for _ in range(iterations):
        nearest = (z @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, z)
        empty = torch.bincount(nearest, minlength=size) == 0
        sums[empty] = z[torch.randint(len(z), (int(empty.sum()),), generator=generator)]
        centres = F.normalize(sums, dim=1)
    return centres


if __name__ == "__main__":
    main()
