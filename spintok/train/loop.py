"""The training loop of all stages: update the weights, write the log, validate, and save checkpoints to resume from."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spintok.progress import Progress
from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.loader import load_batches
from spintok.train.batching.plan import BatchPlan, Position
from spintok.train.checkpoint import Checkpoints, TrainState, frozen_digest
from spintok.train.checkpoint_writer import CheckpointWriter
from spintok.train.distributed import Distributed
from spintok.train.interrupt import StopRequest
from spintok.train.log import Log
from spintok.train.recipe_sections import LoopConfig, OptimizerConfig
from spintok.train.stages.base import Learner

__all__ = ["Run", "TrainingError", "fit"]


class TrainingError(ValueError):
    """Training failed; the message says at which step and why."""


@dataclass(frozen=True)
class Run:
    """What ``fit`` needs besides the model.

    Attributes:
        examples: prepares a batch.
        plan: the plan of the batches.
        optimizer, loop: sections of the recipe.
        workers: number of processes that prepare batches.
        folder: the folder of the checkpoint and the log.
        identity: values that a checkpoint must share with this run to be resumed from.
        check: validates the model on the development set; called in the process of rank 0 only.
    """

    examples: Examples
    plan: BatchPlan
    optimizer: OptimizerConfig
    loop: LoopConfig
    workers: int
    folder: Path
    identity: Mapping[str, Any]
    check: Callable[[], Mapping[str, float]] | None = None

    def check_after(self, step: int) -> Callable[[], Mapping[str, float]] | None:
        """``check`` if the model is validated after update ``step``, else None."""
        every = self.loop.check_every
        return self.check if step == self.optimizer.steps or (every and step and step % every == 0) else None


def fit(model: Learner, run: Run, distributed: Distributed, progress: Progress, message: Callable[[str], None]) -> None:
    """Train ``model`` in place, from the run's checkpoint if there is one.

    On a CPU, a run that was killed and resumed has the same losses and weights, bit for bit, as one that was not.
    The first SIGINT or SIGTERM ends the run after the current step, or with several processes after the next step that
    is logged, where they agree on it.

    Raises:
        KeyboardInterrupt: a signal came; a checkpoint has been saved.
        TrainingError: the loss is not finite, or a codebook has collapsed; the last good checkpoint is kept.
        CheckpointError: the folder holds a checkpoint of another run.
        ValueError: a recording cannot be read.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    is_main = distributed.rank == 0
    model.to(distributed.device).train()
    optimizer = _adam([parameter for parameter in model.parameters() if parameter.requires_grad], run.optimizer)
    checkpoints = Checkpoints(run.folder, {**run.identity, "frozen_weights": frozen_digest(model)})
    state = checkpoints.resume(model, optimizer, message)
    batches = load_batches(run.examples, run.plan, state.position, workers=run.workers, device=distributed.device)
    log = Log(
        run.folder if is_main else None,
        step=state.step,
        steps=run.optimizer.steps,
        tensorboard=run.loop.tensorboard,
        progress=progress,
        message=message,
    )
    updater = _Updater(model, optimizer, run, batches, distributed, state.scale)
    writer = CheckpointWriter(checkpoints, model, optimizer, run.loop.checkpoint_minutes)
    with log, StopRequest(message) as stop, writer:
        check = run.check_after(state.step)
        if is_main and check is not None and not log.has_check(state.step):
            # The run ended after the checkpoint of this step and before its validation.
            log.check(state.step, check())
        for step in range(state.step + 1, run.optimizer.steps + 1):
            last = step == run.optimizer.steps
            update = updater(step)
            position = Position(update.position.epoch, update.position.batch + 1)
            state = TrainState(step, position, state.seconds + update.seconds, updater.scale)
            log.advance(step, update.seconds)
            logged = last or step % run.loop.log_every == 0
            checkpoint_due = is_main and writer.due()
            stopping = _agree_to_stop(stop, distributed, logged=logged)
            if logged or checkpoint_due or stopping:
                # Only rank 0 knows that a checkpoint is due, so without logging nothing here may wait for the others.
                mean = distributed.sum(update.loss) / distributed.world_size if logged else update.loss
                values = {"loss": float(mean)}
                values |= {name: float(value) for name, value in update.statistics.items()}
                values["gradient_norm"] = float(update.gradient_norm)
                _require_healthy(model, values, step, run.optimizer.warmup, scaled=updater.scale is not None)
                if logged:
                    log.statistics(step, values, update.position, update.rate)
            if is_main and (checkpoint_due or last or stopping):
                writer.save(state)
            if stopping and not last:
                writer.finish()
                message(f"saved a checkpoint after step {step} of {run.optimizer.steps}")
                raise KeyboardInterrupt
            if (check := run.check_after(step)) is not None:
                if is_main:
                    log.check(step, check())
                distributed.barrier()
    model.normalize_codewords()


@dataclass(frozen=True)
class _Update:
    """An update of the weights: mean loss of its batches, statistics of the last of them, and what the log shows."""

    loss: Tensor
    statistics: dict[str, Tensor]
    gradient_norm: Tensor
    rate: float
    seconds: float
    position: Position


class _Updater:
    """Updates the weights, with gradient accumulation, mixed precision and data parallelism."""

    def __init__(
        self,
        model: Learner,
        optimizer: torch.optim.Optimizer,
        run: Run,
        batches: Iterator[Batch],
        distributed: Distributed,
        scale: float | None,
    ) -> None:
        self._model = model
        self._parallel = _parallel(model, distributed)
        self._optimizer = optimizer
        self._config = run.optimizer
        self._seed = run.loop.seed
        self._batches = batches
        self._distributed = distributed
        self._precision = _precision(run.loop, distributed.device)
        self._scaler = torch.amp.GradScaler(distributed.device.type, enabled=self._precision is torch.float16)
        if scale is not None:
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": scale})

    @property
    def scale(self) -> float | None:
        """The loss scale; None without float16."""
        return self._scaler.get_scale() if self._scaler.is_enabled() else None

    def __call__(self, step: int) -> _Update:
        """Do update ``step``, counted from 1."""
        _seed_dropout(self._seed, step, self._distributed.rank)
        rate = self._config.rate(step - 1)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._model.normalize_codewords()
        losses: list[Tensor] = []
        seconds = 0.0
        for number in range(1, self._config.accumulation + 1):
            batch = next(self._batches)
            loss, statistics = self._backward(batch, synchronize=number == self._config.accumulation)
            losses.append(loss)
            seconds += batch.seconds * self._distributed.world_size
        self._scaler.unscale_(self._optimizer)
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._config.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return _Update(torch.stack(losses).mean(), statistics, norm, rate, seconds, batch.position)

    def _backward(self, batch: Batch, *, synchronize: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of a batch; return its detached loss and its statistics."""
        device = self._distributed.device.type
        with ExitStack() as scope:
            if isinstance(self._parallel, DistributedDataParallel) and not synchronize:
                scope.enter_context(self._parallel.no_sync())
            with torch.autocast(device, self._precision, enabled=self._precision is not torch.float32):
                loss, statistics = self._parallel(batch)
            self._scaler.scale(loss / self._config.accumulation).backward()
        return loss.detach(), statistics


def _agree_to_stop(stop: StopRequest, distributed: Distributed, *, logged: bool) -> bool:
    """Whether to stop after this step. Several processes agree on logged steps only, since that makes them wait."""
    if distributed.group is None:
        return stop.requested
    if not logged:
        return False
    return bool(distributed.sum(torch.tensor(int(stop.requested), device=distributed.device)))


def _require_healthy(model: Learner, values: Mapping[str, float], step: int, warmup: int, *, scaled: bool) -> None:
    """Raise ``TrainingError`` for a step whose weights must not go into a checkpoint."""
    kept = "the last checkpoint is from an earlier step"
    if not math.isfinite(values["loss"]):
        raise TrainingError(f"step {step}: the loss is {values['loss']}; lower the learning rate; {kept}")
    # With float16 the scaler skips updates whose gradient is not finite, and lowers the loss scale.
    if not scaled and not math.isfinite(values["gradient_norm"]):
        raise TrainingError(f"step {step}: the gradient is not finite; lower the learning rate; {kept}")
    # During warm-up, a random projection may still map all frames to a few codewords.
    if step > warmup and (collapse := model.collapse_message(values)):
        raise TrainingError(f"step {step}: {collapse}; {kept}")


def _adam(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=config.start_rate,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=True,
    )


def _parallel(model: Learner, distributed: Distributed) -> nn.Module:
    if distributed.group is None:
        return model
    # The name of the option until torch 2.12, whose use in 2.13 is a warning.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # A layer that layer dropout skips in one process has no gradient there.
    options: dict[str, Any] = {buffers: False, "find_unused_parameters": model.skips_layers}
    return DistributedDataParallel(model, process_group=distributed.group, **options)


def _precision(loop: LoopConfig, device: torch.device) -> torch.dtype:
    match loop.precision:
        case "float32":
            return torch.float32
        case "bfloat16":
            return torch.bfloat16
        case "float16":
            if device.type == "cpu":
                raise ValueError("loop.precision = 'float16' needs a GPU; on a CPU use float32 or bfloat16")
            return torch.float16
        case "auto":
            if device.type == "cpu":
                return torch.float32
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed torch's generator, so that dropout depends on seed, step and rank only."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]))
