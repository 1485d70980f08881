"""The loop that all stages share: batches in, updates of the weights, a log, and checkpoints to go on from."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spintok.train.batching.examples import Examples
from spintok.train.batching.loader import load_batches
from spintok.train.batching.plan import BatchPlan, Place
from spintok.train.checkpoint import Standing, load_checkpoint, save_checkpoint
from spintok.train.distributed import Ranks
from spintok.train.log import Log
from spintok.train.recipe import LoopConfig, OptimizerConfig
from spintok.train.stages.base import StageModel

__all__ = ["Run", "TrainingError", "fit"]

CHECKPOINT = "checkpoint.safetensors"


class TrainingError(ValueError):
    """A run that cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Run:
    """What ``fit`` runs.

    Attributes:
        examples: prepares a batch.
        plan: which utterances make up each batch.
        optimizer, loop: see there.
        workers: processes that prepare batches.
        folder: of the checkpoint and the log.
        identity: what a run must share to go on from the checkpoint.
        check: measures the model on the development set; called on rank 0 only.
    """

    examples: Examples
    plan: BatchPlan
    optimizer: OptimizerConfig
    loop: LoopConfig
    workers: int
    folder: Path
    identity: Mapping[str, Any]
    check: Callable[[], Mapping[str, float]] | None = None


def fit(model: StageModel, run: Run, ranks: Ranks, console: Console) -> None:
    """Train ``model``, in place, from the run's checkpoint when there is one.

    On a CPU, a run that was killed and resumed gives the same losses and weights, bit for bit, as one that was not.

    Raises:
        TrainingError: the loss is not finite, or a codebook has collapsed; the last good checkpoint stays.
        CheckpointError: the folder holds a checkpoint of another run.
        ValueError: a recording cannot be read.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    model.to(ranks.device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = _adam(trained, run.optimizer)
    path = run.folder / CHECKPOINT
    standing = load_checkpoint(path, model, adam, run.identity) if path.exists() else Standing()
    precision = _precision(run.loop, ranks.device)
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=precision is torch.float16)
    if standing.scale is not None:
        scaler.load_state_dict({**scaler.state_dict(), "scale": standing.scale})
    batches = load_batches(run.examples, run.plan, standing.place, workers=run.workers, device=ranks.device)
    steps = run.optimizer.steps
    main = ranks.rank == 0
    saved = time.monotonic()
    with ExitStack() as stack:
        log = stack.enter_context(
            Log(
                run.folder if main else None,
                console,
                step=standing.step,
                steps=steps,
                tensorboard=run.loop.tensorboard,
            )
        )
        parallel = _parallel(model, ranks)
        for step in range(standing.step + 1, steps + 1):
            _seed(run.loop.seed, step, ranks.rank)
            rate = run.optimizer.rate(step - 1)
            for group in adam.param_groups:
                group["lr"] = rate
            model.normalize_codewords()
            losses: list[Tensor] = []
            figures: dict[str, Tensor] = {}
            seconds, place = 0.0, standing.place
            for micro in range(run.optimizer.accumulation):
                batch = next(batches)
                last = micro == run.optimizer.accumulation - 1
                with ExitStack() as scope:
                    if isinstance(parallel, DistributedDataParallel) and not last:
                        scope.enter_context(parallel.no_sync())
                    with torch.autocast(ranks.device.type, precision, enabled=precision is not torch.float32):
                        loss, figures = parallel(batch)
                    scaler.scale(loss / run.optimizer.accumulation).backward()
                losses.append(loss.detach())
                seconds += batch.seconds * ranks.size
                place = batch.place
            scaler.unscale_(adam)
            norm = nn.utils.clip_grad_norm_(trained, run.optimizer.clip)
            scaler.step(adam)
            scaler.update()
            adam.zero_grad(set_to_none=True)
            scale = scaler.get_scale() if scaler.is_enabled() else None
            standing = Standing(step, Place(place.epoch, place.batch + 1), standing.seconds + seconds, scale)
            log.advance(step, seconds)
            shown = step % run.loop.log_every == 0 or step == steps
            due = main and time.monotonic() - saved >= 60 * run.loop.checkpoint_minutes
            if shown or due:
                # Only rank 0 knows that a checkpoint is due, so nothing here may wait for the others unless shown.
                mean = torch.stack(losses).mean()
                mean = ranks.total(mean) / ranks.size if shown else mean
                values = {"loss": float(mean), **{name: float(value) for name, value in figures.items()}}
                values["gradient_norm"] = float(norm)
                _refuse(model, values, step, run.optimizer.warmup, scaled=scaler.is_enabled())
                if shown:
                    log.figures(step, values, place, rate)
            if main and (due or step == steps):
                save_checkpoint(path, model, adam, standing, run.identity)
                saved = time.monotonic()
            if run.check is not None and (step == steps or _every(run.loop.check_every, step)):
                if main:
                    log.check(step, run.check())
                ranks.wait()
    model.normalize_codewords()


def _refuse(model: StageModel, values: Mapping[str, float], step: int, warmup: int, *, scaled: bool) -> None:
    """Raise ``TrainingError`` for a step whose weights no checkpoint should hold."""
    kept = "the last checkpoint is from before that"
    if not math.isfinite(values["loss"]):
        raise TrainingError(f"step {step}: the loss is {values['loss']}; lower the learning rate; {kept}")
    # With float16, a gradient that is not finite is left out, and the loss's scale falls.
    if not scaled and not math.isfinite(values["gradient_norm"]):
        raise TrainingError(f"step {step}: the gradient is not finite; lower the learning rate; {kept}")
    # Before the end of the warm-up a random projection may still send all frames to few codewords.
    if step > warmup and (message := model.collapsed(values)):
        raise TrainingError(f"step {step}: {message}; {kept}")


def _adam(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=config.start_rate,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def _parallel(model: StageModel, ranks: Ranks) -> nn.Module:
    if ranks.group is None:
        return model
    # A layer that dropout skips on one rank has no gradient there.
    return DistributedDataParallel(
        model,
        process_group=ranks.group,
        broadcast_buffers=False,
        find_unused_parameters=model.encoder.encoder.config.layer_dropout > 0,
    )


def _precision(loop: LoopConfig, device: torch.device) -> torch.dtype:
    match loop.precision:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            if device.type == "cpu":
                raise ValueError("loop.precision = 'float16' needs a GPU; on a CPU take float32 or bfloat16")
            return torch.float16
        case "auto":
            if device.type == "cpu":
                return torch.float32
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _every(steps: int, step: int) -> bool:
    return steps > 0 and step % steps == 0


def _seed(seed: int, step: int, rank: int) -> None:
    """Dropout's draws are a function of seed, step and rank."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]))
