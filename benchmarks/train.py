"""One training step of Spin: the speed, in times real time, and the share of each part.

    spintok bench train AUDIO [--size base] [--codebooks 500 4096] [--seconds 256] [--device cuda] [--workers 8]

AUDIO is a folder of speech or a manifest. The weights are random, since speed does not depend on them. First the loss
of a step is compared with its definition in float64. Then the parts of a step are timed one by one, with a different
batch in each round; the minimum over the rounds counts. In training, workers prepare batches (read, perturb) while
the other parts run. The last line is the speed of the workers alone: if it is below that of the other parts, a step
waits for them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from spintok_kernels.reference import reference_loss
from torch import Tensor

from spintok.augment import draw, perturb, utterance_rng
from spintok.data.manifest import scan
from spintok.masks import length_mask
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.train.batching.examples import Recordings, pad
from spintok.train.batching.loader import load_batches
from spintok.train.batching.plan import BatchPlan, Position, samples_from_headers
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe_sections import CodebookPlan, DataConfig, SpinLossConfig, ViewsConfig
from spintok.train.stages.spin import SpinModel
from spintok.train.trainable import TrainableEncoder

SIZES = {
    "tiny": EncoderConfig(
        conv_channels=(32, 64, 64, 96, 96, 128, 128),
        width=128,
        heads=4,
        feed_forward=512,
        layers=4,
        positional_kernel=32,
        positional_groups=8,
    ),
    "base": EncoderConfig(),
}


def timed(device: torch.device, function: Callable[[], object]) -> tuple[float, object]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--codebooks", type=int, nargs="+", default=[2048])
    parser.add_argument("--seconds", type=float, default=256.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.manual_seed(0)

    utterances = scan(options.audio)
    data = DataConfig(seconds=options.seconds, max_seconds=min(17.0, options.seconds), workers=options.workers)
    plan = BatchPlan.of(samples_from_headers(utterances), data, seed=0)
    recordings = Recordings(utterances, round(data.max_seconds * 16_000))
    examples = ViewExamples(recordings, ViewsConfig(), seed=0)
    encoder = random_encoder(SIZES[options.size], torch.Generator().manual_seed(0))
    books = [CodebookPlan(f"codebook {i}", size) for i, size in enumerate(options.codebooks)]
    trainable = TrainableEncoder(encoder, train_layers=2, train_front_end=False)
    model = SpinModel(trainable, books, SpinLossConfig(), Distributed(device)).to(device).train()
    codebooks = list(model.codebooks.values())
    model.normalize_codewords()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam(trained, lr=1e-6, fused=device.type == "cuda")
    half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    agree(model, examples, plan, device)
    times: dict[str, list[float]] = {}
    planned = plan.specs_from(Position())
    for _ in range(options.rounds + 1):
        batch_plan = next(planned)

        def read(batch_plan=batch_plan):  # type: ignore[no-untyped-def]
            rngs = [utterance_rng(0, batch_plan.position.epoch, utterances[row].key) for row in batch_plan.rows]
            crops = [recordings.crop(row, rng) for row, rng in zip(batch_plan.rows, rngs, strict=True)]
            return (*pad([crop.waveform for crop in crops]), rngs)

        spent: dict[str, float] = {}
        spent["read"], (waveforms, lengths, rngs) = timed(device, read)
        changes = [draw(rng) for rng in rngs]
        spent["perturb"], second = timed(device, lambda w=waveforms, n=lengths, c=changes: perturb(w, n, c))
        inputs, counts = torch.cat([waveforms, second]).to(device), lengths.repeat(2).to(device)
        with half:
            spent["frozen layers"], (lower, frames) = timed(
                device, lambda i=inputs, n=counts: trainable.frozen_features(i, n)
            )
            spent["trained layers"], (features, _) = timed(device, lambda x=lower, n=frames: trainable(x, n))
        flat = valid_frames(features, frames)
        statistics: dict[str, torch.Tensor] = {}
        spent["loss"], loss = timed(
            device,
            lambda x=flat, s=statistics: sum(model.swapped_loss(book, book.embed(x), s) for book in codebooks),
        )
        spent["backward"], _ = timed(device, loss.backward)

        def update() -> None:
            torch.nn.utils.clip_grad_norm_(trained, 10.0)
            adam.step()
            adam.zero_grad()
            model.normalize_codewords()

        spent["update"], _ = timed(device, update)
        seconds = int(lengths.sum()) / 16_000
        for name, value in spent.items():
            times.setdefault(name, []).append(value / seconds)

    # The first round warms up.
    best = {name: min(values[1:]) for name, values in times.items()}
    device_parts = {name: value for name, value in best.items() if name not in ("read", "perturb")}
    total, step = sum(best.values()), sum(device_parts.values())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"\n{options.size}, codebooks {options.codebooks}, {options.seconds:g} s a step, {where}\n")
    print(f"{'part':16}{'x real time':>12}{'share':>8}")
    for name, value in best.items():
        print(f"{name:16}{1 / value:12.1f}{value / total:8.1%}")
    print(f"{'all, in turn':16}{1 / total:12.1f}")
    print(f"{'without the first two':21}{1 / step:7.1f}")
    if options.workers:
        speed = loader_speed(examples, plan, options.workers)
        print(f"{options.workers} workers{'':7}{speed:12.1f}  ({speed * step:.2f} of what the step takes)")


def valid_frames(features: Tensor, counts: Tensor) -> Tensor:
    """The frames of features (B, T, D) that are not padding, in utterance order: (N, D)."""
    return features[length_mask(counts, features.shape[1])]


def agree(model: SpinModel, examples: ViewExamples, plan: BatchPlan, device: torch.device) -> None:
    """The loss of a batch must be that of its definition."""
    batch = examples(next(plan.specs_from(Position()))).to(device)
    with torch.no_grad():
        loss = model(batch).loss
        features, counts = model.encoder(torch.cat([batch.inputs, batch.second]), batch.lengths.repeat(2))
        frames = valid_frames(features, counts)
        expected = sum(
            reference_loss(*(z.cpu() for z in book.embed(frames).chunk(2)), book.normalized_codewords().cpu())
            for book in model.codebooks.values()
        )
    difference = abs(float(loss) - float(expected)) / float(expected)
    # On a GPU the scores are float16.
    allowed = 1e-5 if device.type == "cpu" else 1e-3
    print(f"loss {float(loss):.6f}, its definition in float64 {float(expected):.6f}: {difference:.1e} apart")
    if not difference <= allowed:
        raise SystemExit(f"no figures: the loss is more than {allowed:g} from its definition")


def loader_speed(examples: ViewExamples, plan: BatchPlan, workers: int) -> float:
    """Seconds of audio a second that the workers prepare, after their first batches."""
    batches = load_batches(examples, plan, Position(), workers=workers, device=torch.device("cpu"))
    for _ in range(workers):
        next(batches)
    start, seconds = time.perf_counter(), 0.0
    for _ in range(3 * workers):
        seconds += next(batches).seconds
    return seconds / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
