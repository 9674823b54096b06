"""The ranks of a run: this process's rank and device, and communication between ranks."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import GradientAccumulationPlugin, TorchDynamoPlugin
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.core.errors import Stopped, UserError
from hms_dist.core.logging import LOG
from hms_dist.model.norm_act import set_process_group
from hms_dist.train.folder.trackers import TRACKERS_NAME
from hms_dist.train.ranks.variables import MIXED_PRECISION, check_variables, overruled

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision of a run -> dtype of automatic mixed precision; others have none."""


@dataclass(frozen=True)
class World:
    """One of the ranks of a run: the rank of this process."""

    accelerator: Accelerator
    rank: int
    num_ranks: int
    device: torch.device
    arithmetic: str
    """Precision that is used: the configured one if the device has it."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> None:
        """Sum a tensor, of any shape and any dtype, on any device, over the ranks, in place."""
        if self.num_ranks > 1:
            there = tensor.to(self.device)
            torch.distributed.all_reduce(there)
            tensor.copy_(there)

    def gather_rows(self, rows: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Concatenate `rows` [n] and their `values` [n, ...], any dtype, of all ranks, in rank order; n may differ
        between ranks."""
        if self.num_ranks == 1:
            return rows, values
        parts = self.gather((rows, values))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def gather(self, value: Any) -> list[Any]:
        """Gather a plain Python value of each rank, in rank order, on all ranks."""
        values = [value]
        if self.num_ranks > 1:
            values = [None] * self.num_ranks
            torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the main rank's plain Python value on every rank."""
        values = [value]
        if self.num_ranks > 1:
            torch.distributed.broadcast_object_list(values)
        return values[0]

    def any_rank(self, flag: bool) -> bool:
        """Return on every rank whether the flag is true on any rank; synchronises with the GPU."""
        raised = torch.tensor(float(flag))
        self.sum_(raised)
        return bool(raised)

    def wait(self) -> None:
        """Wait for all ranks."""
        self.accelerator.wait_for_everyone()

    def scaler_state(self) -> dict[str, Any]:
        """Return the state of fp16's gradient scaler; empty without one."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def reset_scaler(self, state: dict[str, Any]) -> None:
        """Restore a state of fp16's gradient scaler; does nothing without one."""
        if state:
            self.accelerator.scaler.load_state_dict(state)

    @contextmanager
    def shutdown(self) -> Iterator[None]:
        """Close the trackers at the end of the block, and destroy the process group if all ranks finish or stop
        together.

        A rank that fails may be the only one, and destroying the process group could wait forever: NCCL waits for the
        kernels of its peers, which wait for those of this rank. So a failing rank exits without destroying the group,
        and the launcher ends the other ranks.
        """
        try:
            yield
        except Stopped:
            self.accelerator.end_training()
            raise
        except BaseException:
            for tracker in self.accelerator.trackers:
                tracker.finish()
            raise
        self.accelerator.end_training()


def launched_ranks() -> int:
    """Return the number of ranks that the launcher started, from its variables; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Return this process's rank, from the launcher's variables; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def open_world(precision: str, timeout_s: float, *, trackers: Sequence[str] = (), out: Path | None = None) -> World:
    """Join the process group; `trackers` write into the run folder `out`.

    Raises UserError if the launcher and accelerate disagree about the number of ranks.
    """
    check_variables(precision)
    if launched_rank() == 0:
        for line in overruled(precision):
            LOG.warning("%s", line)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # accelerate uses no newer name yet
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # otherwise float32 would be rounded to TF32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    on_cpu = not torch.cuda.is_available()
    arithmetic = computed_precision(precision, capability(torch.device("cpu" if on_cpu else "cuda")))
    accelerator = Accelerator(
        device_placement=False,  # `prepare` would move or copy tensors to which references exist
        cpu=on_cpu,
        mixed_precision=MIXED_PRECISION[arithmetic],
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_plugin=TorchDynamoPlugin(
            backend="no", mode="default", fullgraph=False, dynamic=False, use_regional_compilation=False
        ),
        log_with=list(trackers) or None,
        project_dir=out and out / TRACKERS_NAME,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s)),
        ],
    )
    if accelerator.num_processes != launched_ranks():
        raise UserError(
            f"the launcher started {launched_ranks()} ranks but accelerate sees {accelerator.num_processes}; on a CPU "
            "use configs/accelerate/cpu2.yaml, or set ACCELERATE_USE_CPU=1 for torchrun"
        )
    # Norms reduce statistics while DDP reduces gradients, in another order; so they need a group of their own.
    set_process_group(torch.distributed.new_group() if accelerator.num_processes > 1 else None)
    world = World(accelerator, accelerator.process_index, accelerator.num_processes, accelerator.device, arithmetic)
    used = world.gather(arithmetic)
    if len(set(used)) > 1:
        raise UserError(
            f"precision {precision}: the ranks' devices differ, they would compute in {', '.join(used)} (ranks 0 to "
            f"{len(used) - 1}); set precision to one that all of them have"
        )
    if arithmetic != precision and world.is_main:
        LOG.warning("precision %s: not supported by this device (%s), using %s", precision, world.device, arithmetic)
    return world


def capability(device: torch.device) -> tuple[int, int] | None:
    """Return the compute capability of a GPU, the current one if `device` has no number; None for a CPU."""
    if device.type != "cuda":
        return None
    if device == torch.device("cuda"):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.cuda.get_device_capability(device)


def computed_precision(precision: str, has: tuple[int, int] | None) -> str:
    """Return the precision that a device of compute capability `has` (None: a CPU) uses for a configured one.

    GPUs before 8.0 have neither bf16 nor TF32, and use fp16 and float32; CPUs use float32 for accelerate's fp16 and
    for TF32.
    """
    if has is None:
        return "float32" if precision in ("fp16", "tf32") else precision
    return {"bf16": "fp16", "tf32": "float32"}.get(precision, precision) if has < (8, 0) else precision
