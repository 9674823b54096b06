"""Models, random data and timing of bare training steps, without the trainer: used by model.py and trainer.py."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hms_dist.model.by_rows import convert
from hms_dist.model.convolutions import fast_convolutions
from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms
from hms_dist.model.loss import kl_rows
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups
from hms_dist.model.tiny_vit.blocks import fast_blocks

HEIGHT, WIDTH, NUM_CLASSES = 640, 1920, 6
NUM_WARM, NUM_ROUNDS, ROUND_STEPS, CURVE_STEPS = 3, 5, 8, 50
SYSTEMS = {
    "timm eager": (False, False),
    "timm + compile": (False, True),
    "hms_dist eager": (True, False),
    "hms_dist + compile": (True, True),
}
"""Name -> own blocks, compiled."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Model, sizes and device of the measurement; the default is the bench of docs/performance.md."""

    device: torch.device
    model: str = "tiny_vit_21m_512"
    size: tuple[int, int] = (HEIGHT, WIDTH)
    rounds: int = NUM_ROUNDS
    round_steps: int = ROUND_STEPS
    curve_steps: int = CURVE_STEPS

    @property
    def device_name(self) -> str:
        """Name of the device."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def model_of(name: str, setting: Setting, mode: str = "default", **options: float) -> nn.Module:
    """The model of a system, with the same weights for all."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(setting.model, in_chans=1, num_classes=NUM_CLASSES, **options)
    is_own, compiled = SYSTEMS[name]
    if is_own:
        fast_convolutions(fast_blocks(model))
        convert(model, PassRows(setting.device))
    if compiled:
        model.compile(mode=mode, dynamic=False)
    return on_device(model, setting)


def on_device(model: nn.Module, setting: Setting) -> nn.Module:
    model.to(setting.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


def data(batch: int, setting: Setting) -> tuple[Tensor, Tensor]:
    """Random images and targets, always the same."""
    generator = torch.Generator(setting.device).manual_seed(1)
    images = torch.rand(batch, 1, *setting.size, device=setting.device, generator=generator)
    targets = torch.rand(batch, NUM_CLASSES, device=setting.device, generator=generator).mul(3).softmax(-1)
    return images.contiguous(memory_format=torch.channels_last), targets


def stepper(model: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    """One optimiser step, which gives its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    norms = one_group(model, len(images))

    def step() -> Tensor:
        norms.begin_step()
        norms.begin_pass()
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = model(images)
        norms.after_pass()
        loss = kl_rows(logits, targets).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        norms.end_step(1)
        optimizer.zero_grad()
        return loss.detach()

    return step


def one_group(model: nn.Module, num_rows: int) -> GroupNorms:
    """Begin a pass in which all rows are one group, as in timm's norms; empty for a model that was not converted."""
    norms: list[GroupBatchNorm] = [norm for norm in model.modules() if isinstance(norm, GroupBatchNorm)]
    rows = norms[0].rows if norms else PassRows(torch.device("cpu"))
    rows.begin(whole_groups(1, num_rows), draw_words(0, 0, 0, range(num_rows)))
    found = GroupNorms(model, rows)
    found.begin_step()
    found.begin_pass()
    return found


def timed(work: Callable[[], object], batch: int, setting: Setting) -> Row:
    """Milliseconds, images a second, and the most memory that tensors took on a GPU."""
    on_gpu = setting.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(NUM_WARM):
        work()
    taken = []
    for _ in range(setting.rounds):
        setting.synchronize()
        begun = perf_counter()
        for _ in range(setting.round_steps):
            work()
        setting.synchronize()
        taken.append((perf_counter() - begun) / setting.round_steps)
    milliseconds = 1000 * statistics.median(taken)
    memory = {"GiB": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {}
    return {"ms": milliseconds, "images/s": 1000 * batch / milliseconds, **memory}


def write_profile(step: Callable[[], object], path: Path) -> None:
    """Profile three steps: on the GPU by kernel, then on the host by call."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    path.parent.mkdir(parents=True, exist_ok=True)
    orders = ("self_cuda_time_total", "self_cpu_time_total")
    tables = [seen.key_averages().table(sort_by=order, row_limit=60, max_name_column_width=90) for order in orders]
    path.write_text("\n".join(tables))
