"""Measure what rendering a row and training on a row take on this machine."""

import csv
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import Render, RenderConfig
from hms_dist.rendering.render import run as render
from hms_dist.stream.read.loader import load
from hms_dist.train.data.run_canvas import with_statistics
from hms_dist.train.data.run_data import RunData, epoch_rows, open_run_data, requests_of
from hms_dist.train.learn.evaluate import predict_rows
from hms_dist.train.learn.learner import Learner
from hms_dist.train.learn.step import OptimizerStep
from hms_dist.train.ranks.world import World, open_world
from hms_dist.train.settings import TrainConfig

NUM_RECORDINGS = 8
"""Fewest simulated recordings to render."""
UNTIMED = 3
"""Steps on a GPU before the timed ones; on a CPU one."""


@dataclass(frozen=True)
class RenderCost:
    """Cost of rendering a row, of one core."""

    num_recordings: int
    num_rows: int
    bytes_a_row: float
    seconds_a_row: float
    """With all label rows of each recording."""
    seconds_an_eeg: float
    """With one label row a recording, as in a test set."""


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step of `num_rows` rows."""

    device: str
    """Name of the GPU, or cpu."""
    num_rows: int
    seconds: float
    """On a CPU of one core."""
    seconds_predicted: float
    """Of a prediction of as many rows."""
    peak_bytes: int
    """Largest memory of the GPU; 0 on a CPU."""
    fixed_bytes: int
    """Weights, gradients, moments of the optimiser and moving average."""
    kept_bytes: int
    """Tensors that autograd keeps for the backward pass; counted on a CPU only."""


def rendering_cost(recipe: RenderConfig, folder: Path, num_rows: int) -> RenderCost:
    """Render simulated recordings, at least `num_rows` rows, into FOLDER/shards, and measure a second time.

    The first time compiles. Times are of the processor, so other programs do not count.
    """
    data, first = folder / "data", folder / "first.csv"
    num_recordings = max(NUM_RECORDINGS, num_rows)
    simulate(Simulate(out=data, num_recordings=num_recordings))
    table = list(csv.DictReader((data / "train.csv").open()))
    by_eeg = list({row["eeg_id"]: row for row in reversed(table)}.values())
    with first.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(by_eeg)

    def seconds(name: str, label_table: Path) -> float:
        begun = time.process_time()
        render(
            Render(
                data=data, out=folder / name, table=label_table, panels=recipe.panels,
                samples_per_shard=recipe.samples_per_shard, seed=recipe.seed,
            )
        )  # fmt: skip
        return time.process_time() - begun

    seconds("compiled", first)
    all_rows, one_each = seconds("shards", data / "train.csv"), seconds("first", first)
    num_bytes = sum(path.stat().st_size for path in (folder / "shards").glob("*.tar"))
    return RenderCost(num_recordings, len(table), num_bytes / len(table), all_rows / len(table), one_each / len(by_eeg))


def step_cost(config: TrainConfig) -> StepCost:
    """Take the first step of each epoch of a run, then predict as many rows. The first steps are not timed."""
    config.out.mkdir(parents=True, exist_ok=True)
    world = open_world(config.precision, config.timeout_s)
    on_gpu = world.device.type == "cuda"
    with world.shutdown(), closing(open_run_data(config)) as opened:
        data = with_statistics(config, opened, world)
        learner = Learner(config, data, world)
        learner.choose_passes(None)
        learner.begin()
        with _kept_bytes() as kept:
            seconds = [_step(learner, config, data, epoch=0)]
        seconds += [_step(learner, config, data, epoch=epoch) for epoch in range(1, config.epochs)]
        peak = torch.cuda.max_memory_allocated(world.device) if on_gpu else 0
        predicted = [_prediction(learner, config, data, world) for _ in range(3 if on_gpu else 1)]
    return StepCost(
        device=torch.cuda.get_device_name(world.device) if on_gpu else "cpu",
        num_rows=config.global_batch, seconds=median(seconds[UNTIMED if on_gpu else 1 :]),
        seconds_predicted=min(predicted), peak_bytes=peak, fixed_bytes=_fixed_bytes(learner),
        kept_bytes=sum(kept.values()),
    )  # fmt: skip


def _step(learner: Learner, config: TrainConfig, data: RunData, *, epoch: int) -> float:
    """Take the first step of an epoch; return its seconds."""
    rows = epoch_rows(config, data, epoch)
    requests = requests_of(config, data, learner.task, epoch, rows, range(1), learner.passes)
    step = OptimizerStep(
        epoch=epoch, number=0, overall=epoch, epoch_ends=tuple(range(1, config.epochs + 1)),
        rows=rows[: config.global_batch],
    )  # fmt: skip
    with _timed() as times, closing(load(data.shards.reader, requests, threads=config.reader_threads)) as batches:
        learner.stepper.take(batches, step)
    return times[0]


def _prediction(learner: Learner, config: TrainConfig, data: RunData, world: World) -> float:
    """Predict as many rows as a step has; return the seconds."""
    rows = data.labels.rows[: config.global_batch]
    with _timed() as times:
        predict_rows(
            learner.stepper.model, data.plain, rows, world,
            task=learner.task, size=len(rows), threads=config.reader_threads,
        )  # fmt: skip
    return times[0]


def _fixed_bytes(learner: Learner) -> int:
    """Bytes of weights, gradients, optimiser and moving average."""
    weights = sum(parameter.nbytes for parameter in learner.raw_model.parameters())
    moments = [value for state in learner.optimizer.state.values() for value in state.values()]
    return (2 + (learner.ema is not None)) * weights + sum(one.nbytes for one in moments if isinstance(one, Tensor))


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Append the seconds of the block to the list: by the clock on a GPU; on a CPU of the processor, all threads
    together, so that other programs do not count."""
    times: list[float] = []
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    begun = clock()
    yield times
    if on_gpu:
        torch.cuda.synchronize()
    times.append(clock() - begun)


@contextmanager
def _kept_bytes() -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that autograd keeps for the backward passes of the block, weights excepted."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes
