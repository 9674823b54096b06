"""Exact evaluation: every row is predicted once, at any number of ranks, and results are gathered by row."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.core.errors import UserError
from hms_dist.results.metric_kinds import Metric
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Request, load
from hms_dist.train.data.run_data import ShardSet
from hms_dist.train.ranks.world import World
from hms_dist.train.task import Task

ROWS_ON_GPU = 64
"""Rows that a GPU predicts at once, rounded to whole groups: with fewer it waits for launches."""


def batch_values(
    metric: Metric, truth: NDArray[np.float64], prediction: NDArray[np.float64], batch_size: int
) -> list[float]:
    """Compute the metric of each batch of `batch_size` consecutive rows of tables [rows, classes]; the last batch may
    be smaller, and batches without a known label are left out."""
    starts = range(0, len(truth), batch_size)
    batches = [(truth[s : s + batch_size], prediction[s : s + batch_size]) for s in starts]
    return [metric.value(of_batch, found) for of_batch, found in batches if metric.row_weights(of_batch).any()]


@torch.no_grad()
def predict_rows(
    model: nn.Module,
    shards: ShardSet,
    rows: Rows,
    world: World,
    *,
    task: Task,
    size: int,
    threads: int,
    before_round: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Predict `rows` in order, on every rank: outputs of `task` [len(rows), num_outputs], probabilities first.

    Rows are predicted `size` at once; the last batch is padded, and the padding dropped, so that the same kernels
    compute a row at any number of ranks. In each round a rank predicts one batch or none. All ranks call
    `before_round` before each round.
    """
    dtype = next(model.parameters()).dtype
    groups = groups_of(rows, size)
    mine = [padded(group, size) for group in groups[world.rank :: world.num_ranks]]
    found_rows, found = [np.empty(0, np.int64)], [np.empty((0, task.num_outputs))]
    batches = load(
        shards.reader, (Request(padded) for padded, _ in mine), threads=threads, pin=world.device.type == "cuda"
    )
    with closing(batches), evaluating(model):
        for number in range(0, len(groups), world.num_ranks):
            before_round()
            if number + world.rank >= len(groups):
                continue
            batch, (_, kept) = next(batches), mine[number // world.num_ranks]
            outputs = predict_in_memory(task, model, shards.canvas(batch.to(world.device)).to(dtype), batch.rows)
            found_rows.append(batch.rows[:kept])
            found.append(outputs[:kept].cpu().double().numpy())
    return in_order(rows, *world.gather_rows(np.concatenate(found_rows), np.concatenate(found)))


def rows_at_once(group_size: int, device: torch.device) -> int:
    """Rows of a batch of predictions: a group, or on a GPU about `ROWS_ON_GPU`, in whole groups."""
    return group_size if device.type != "cuda" else max(ROWS_ON_GPU // group_size, 1) * group_size


def predict_in_memory(task: Task, model: nn.Module, images: Tensor, rows: Rows | None = None) -> Tensor:
    """Predict rows as `task.predict`; if a GPU runs out of memory, predict each half of them separately."""
    try:
        return task.predict(model, images, rows)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    torch.cuda.empty_cache()
    halves, first = images.chunk(2), -(-len(images) // 2)
    of_half = (None, None) if rows is None else (rows[:first], rows[first:])
    return torch.cat([predict_in_memory(task, model, *half) for half in zip(halves, of_half, strict=True)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode inside the block, and restore the mode of every module afterwards.

    train() is called before eval(), so that timm's TinyViT recomputes the attention biases that it caches.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    model.eval()
    try:
        yield
    finally:
        model.train()  # drops the biases cached for evaluation
        for module, mode in modes:
            module.training = mode


def groups_of(rows: Rows, size: int) -> list[Rows]:
    """Split rows [n] into batches of `size`; the last one may be shorter."""
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def padded(group: Rows, size: int) -> tuple[Rows, int]:
    """Pad a batch to [size] by repeating its first row; also return the number of rows before padding."""
    return np.concatenate([group, np.repeat(group[:1], size - len(group))]), len(group)


def in_order(rows: Rows, found_rows: Rows, found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort values `found` [n, ...] into the order of `rows` [n]. Raises UserError unless each row was evaluated exactly
    once."""
    order = np.argsort(found_rows, kind="stable")
    wanted = np.argsort(rows, kind="stable")
    if not np.array_equal(found_rows[order], rows[wanted]):
        raise UserError(f"evaluation: expected {len(rows)} rows once each, found {len(found_rows)}")
    values = np.empty_like(found)
    values[wanted] = found[order]
    return values
