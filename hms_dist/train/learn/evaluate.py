"""Exact evaluation: every row once at any number of ranks, gathered by row."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hms_dist.core.errors import UserError
from hms_dist.results.metric_kinds import Metric
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Request, load
from hms_dist.train.data.run_data import ShardSet
from hms_dist.train.ranks.world import World
from hms_dist.train.task import Task


def batch_values(
    metric: Metric, truth: NDArray[np.float64], prediction: NDArray[np.float64], batch_size: int
) -> list[float]:
    """The metric of each evaluated batch of `batch_size` rows, in their order, the last one perhaps smaller; batches
    in which nothing is known are left out."""
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
    group_size: int,
    threads: int,
    before_round: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Answers of `task` [len(rows), num_answers] for `rows`, in their order, on every rank: probabilities first.

    Each group has `group_size` rows, the last one padded and its padding dropped, so that a row meets the
    same kernels at any world size. All ranks call `before_round` as often, before each takes one group or none.
    """
    dtype = next(model.parameters()).dtype
    groups = groups_of(rows, group_size)
    mine = [padded(group, group_size) for group in groups[world.rank :: world.num_ranks]]
    found_rows, found = [np.empty(0, np.int64)], [np.empty((0, task.num_answers))]
    batches = load(
        shards.reader, (Request(padded) for padded, _ in mine), threads=threads, pin=world.device.type == "cuda"
    )
    with closing(batches), evaluating(model):
        for number in range(0, len(groups), world.num_ranks):
            before_round()
            if number + world.rank >= len(groups):
                continue
            batch, (_, kept) = next(batches), mine[number // world.num_ranks]
            answers = task.answers(model, shards.canvas(batch.to(world.device)).to(dtype))
            found_rows.append(batch.rows[:kept])
            found.append(answers[:kept].cpu().double().numpy())
    return in_order(rows, *world.gather_rows(np.concatenate(found_rows), np.concatenate(found)))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model through train() and eval(), so that timm's TinyViT refreshes the attention biases that it caches;
    afterwards every module is in its mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    model.eval()
    try:
        yield
    finally:
        model.train()  # drops the biases cached for evaluation
        for module, mode in modes:
            module.training = mode


def groups_of(rows: Rows, group_size: int) -> list[Rows]:
    """Rows cut into groups of `group_size`; the last one may be shorter."""
    return [rows[first : first + group_size] for first in range(0, len(rows), group_size)]


def padded(group: Rows, group_size: int) -> tuple[Rows, int]:
    """A group padded with its own first row, and how many of its rows count."""
    return np.concatenate([group, np.repeat(group[:1], group_size - len(group))]), len(group)


def in_order(rows: Rows, found_rows: Rows, found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in the order of `rows`; asserts that each row was evaluated exactly once."""
    order = np.argsort(found_rows, kind="stable")
    wanted = np.argsort(rows, kind="stable")
    if not np.array_equal(found_rows[order], rows[wanted]):
        raise UserError(f"evaluation: expected {len(rows)} rows once each, found {len(found_rows)}")
    values = np.empty_like(found)
    values[wanted] = found[order]
    return values
